//! The machine's run states and which may follow which.
//!
//! Besides what clients know, every stopped state may turn into `internal-error`: when a reset or
//! a load fails half-way, the machine must not run before it is reset.
//!
//! Data and one pure function; the only writer of a machine's state is
//! [`Vm`](crate::vm::Vm) on the main thread.

use qmp::RunState::{self, *};

/// The states that may follow each state.
const TRANSITIONS: &[(RunState, &[RunState])] = &[
    (Debug, &[Running, Suspended, Paused, FinishMigrate, InternalError]),
    (
        Inmigrate,
        &[
            Running,
            Paused,
            InternalError,
            IoError,
            Shutdown,
            Suspended,
            Watchdog,
            GuestPanicked,
            FinishMigrate,
            Prelaunch,
            Postmigrate,
        ],
    ),
    (InternalError, &[Paused, FinishMigrate]),
    (IoError, &[Running, FinishMigrate, Paused, InternalError]),
    (
        Paused,
        &[
            Running,
            FinishMigrate,
            Postmigrate,
            Suspended,
            InternalError,
            // What was loaded brings them along.
            IoError,
            Shutdown,
            Watchdog,
            GuestPanicked,
        ],
    ),
    (Postmigrate, &[Running, FinishMigrate, Paused, InternalError]),
    (Prelaunch, &[Running, FinishMigrate, Inmigrate, Suspended, Paused, InternalError]),
    (
        FinishMigrate,
        &[
            Running,
            Postmigrate,
            Prelaunch,
            Debug,
            Paused,
            InternalError,
            IoError,
            Shutdown,
            Suspended,
            Watchdog,
            GuestPanicked,
        ],
    ),
    (RestoreVm, &[Running, Paused, InternalError]),
    (
        Running,
        &[
            Debug,
            InternalError,
            IoError,
            Paused,
            FinishMigrate,
            RestoreVm,
            SaveVm,
            Shutdown,
            Watchdog,
            GuestPanicked,
            Suspended,
        ],
    ),
    (SaveVm, &[Running, Paused, InternalError]),
    (Shutdown, &[Paused, FinishMigrate, InternalError]),
    (Suspended, &[Running, FinishMigrate, Paused, Shutdown, InternalError]),
    (Watchdog, &[Running, FinishMigrate, Paused, InternalError]),
    (GuestPanicked, &[Running, FinishMigrate, Paused, InternalError]),
];

/// Whether a machine in state `from` may go to `to`. Staying is always allowed.
pub fn allowed(from: RunState, to: RunState) -> bool {
    from == to || TRANSITIONS.iter().any(|(state, next)| *state == from && next.contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state, so that one added to the schema shows up here.
    const ALL: [RunState; 15] = [
        Debug,
        Inmigrate,
        InternalError,
        IoError,
        Paused,
        Postmigrate,
        Prelaunch,
        FinishMigrate,
        RestoreVm,
        Running,
        SaveVm,
        Shutdown,
        Suspended,
        Watchdog,
        GuestPanicked,
    ];

    #[test]
    fn every_state_has_one_row_and_a_way_to_run_again() {
        for state in ALL {
            assert_eq!(TRANSITIONS.iter().filter(|(from, _)| *from == state).count(), 1);
            let direct = allowed(state, Running);
            let by_reset = allowed(state, Paused) && allowed(Paused, Running);
            assert!(direct || by_reset, "{state:?} is a dead end");
            assert!(allowed(state, InternalError), "{state:?} cannot fail");
        }
    }

    /// A guest that could not be moved is as it was before.
    #[test]
    fn a_migration_leads_back_to_where_it_began() {
        // A guest that sleeps is woken first, one that is awaited cannot move.
        let begins = ALL.into_iter().filter(|from| allowed(*from, FinishMigrate));
        for from in begins.filter(|from| *from != Inmigrate) {
            assert!(allowed(FinishMigrate, from), "{from:?}");
        }
    }

    #[test]
    fn what_needs_a_reset_cannot_run_at_once() {
        assert!(!allowed(Shutdown, Running));
        assert!(!allowed(InternalError, Running));
        assert!(!allowed(Running, Prelaunch));
        assert!(!allowed(Running, Inmigrate));
    }
}
