//! How an outgoing migration stands, and what it may do: what its thread and clients share.
//!
//! Any thread. Two leaf locks, held for moments: one around the phase, by which is decided who has
//! the guest, and one around the figures. A client can ask at every moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::blocks;
use crate::channel::Limiter;
use crate::stream::Error;
use crate::xbzrle::Stats;

/// What a migration may use; can be changed while it is under way.
#[derive(Debug)]
pub struct Limits {
    bandwidth: Limiter,
    downtime: AtomicU64,
    cache: AtomicU64,
}

impl Default for Limits {
    /// 32 MiB a second, 30 ms, and a cache of 64 MiB.
    fn default() -> Limits {
        Limits {
            bandwidth: Limiter::new(32 << 20),
            downtime: AtomicU64::new(30_000_000),
            cache: AtomicU64::new(64 << 20),
        }
    }
}

impl Limits {
    /// What holds the bandwidth.
    pub fn limiter(&self) -> &Limiter {
        &self.bandwidth
    }

    /// Bytes a second; below 10 there is no limit.
    pub fn bandwidth(&self) -> u64 {
        self.bandwidth.rate()
    }

    /// Sets the bytes a second.
    pub fn set_bandwidth(&self, bytes: u64) {
        self.bandwidth.set(bytes);
    }

    /// Bytes of the cache for differences.
    pub fn cache(&self) -> u64 {
        self.cache.load(Relaxed)
    }

    /// Sets the bytes of the cache for differences, a power of two.
    pub fn set_cache(&self, bytes: u64) {
        self.cache.store(bytes, Relaxed);
    }

    /// How long the guest may stand still.
    pub fn downtime(&self) -> Duration {
        Duration::from_nanos(self.downtime.load(Relaxed))
    }

    /// Sets how long the guest may stand still.
    pub fn set_downtime(&self, downtime: Duration) {
        let nanos = u64::try_from(downtime.as_nanos()).unwrap_or(u64::MAX);
        self.downtime.store(nanos, Relaxed);
    }
}

/// Where a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It connects, or says what it will send.
    Setup,
    /// It sends.
    Active,
    /// It is to end.
    Cancelling,
    /// The guest was given away; this cannot be taken back.
    Committed,
    /// The other side runs the guest, and lacks some of its memory.
    Postcopy,
    /// The other side has the guest.
    Completed,
    /// It has failed; this side has the guest.
    Failed,
    /// It was cancelled; this side has the guest.
    Cancelled,
}

impl Phase {
    /// Whether it has not ended.
    pub fn is_running(self) -> bool {
        use Phase::{Active, Cancelling, Committed, Postcopy, Setup};
        matches!(self, Setup | Active | Cancelling | Committed | Postcopy)
    }
}

/// What clients are told of a migration.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Bytes sent.
    pub transferred: u64,
    /// Bytes of pages that are still to be sent.
    pub remaining: u64,
    /// Bytes of all memory.
    pub total: u64,
    /// Pages of zeros that were sent.
    pub zero: u64,
    /// Whole pages that were sent.
    pub normal: u64,
    /// Pages that the guest writes a second.
    pub dirty_rate: u64,
    /// Megabits a second in the last tenth of a second.
    pub mbps: f64,
    /// Milliseconds the guest would stand still.
    pub expected_downtime: u64,
    /// Milliseconds before the first page.
    pub setup_time: u64,
    /// Milliseconds the guest stood still.
    pub downtime: u64,
    /// Milliseconds in all.
    pub total_time: u64,
    /// The percentage of its time that is taken from the guest.
    pub throttle: u8,
    /// How sending differences fares, if they are sent.
    pub deltas: Option<Stats>,
    /// How disks fare, if they move too.
    pub disk: Option<blocks::Figures>,
}

type HangUp = Box<dyn FnOnce() + Send>;

/// One outgoing migration.
pub struct Progress {
    began: Instant,
    state: Mutex<State>,
    figures: Mutex<Figures>,
    /// The guest is to go before its memory.
    early: AtomicBool,
}

struct State {
    phase: Phase,
    error: Option<String>,
    hang_up: Option<HangUp>,
    /// When a cancel hangs up after all, once the guest was given away; `None`: never.
    patient_until: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Progress {
        let began = Instant::now();
        let state = State { phase: Phase::Setup, error: None, hang_up: None, patient_until: None };
        let (figures, early) = (Mutex::default(), AtomicBool::new(false));
        Progress { began, state: Mutex::new(state), figures, early }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Progress {
    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Why it has failed.
    pub fn error(&self) -> Option<String> {
        self.state.lock().error.clone()
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        let mut figures = *self.figures.lock();
        if self.phase().is_running() {
            figures.total_time = millis(self.began.elapsed());
        }
        figures
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock());
    }

    /// How a call that blocks in the connection is ended when this is cancelled.
    pub fn hang_up_by(&self, hang_up: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if state.phase == Phase::Cancelling {
            hang_up();
        } else {
            state.hang_up = Some(Box::new(hang_up));
        }
    }

    /// Ends it, unless it has ended. Where the guest was given away this cannot be taken back: then
    /// it only ends the waiting for a peer that does not say that it has it, if a connection that
    /// ends does the guest no harm.
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Setup | Phase::Active => state.phase = Phase::Cancelling,
            Phase::Committed
                if state.patient_until.is_some_and(|until| Instant::now() >= until) => {}
            _ => return,
        }
        if let Some(hang_up) = state.hang_up.take() {
            hang_up();
        }
    }

    /// Connected, and about to send memory.
    pub(crate) fn active(&self) -> Result<(), Error> {
        self.step(Phase::Setup, Phase::Active)?;
        let setup = millis(self.began.elapsed());
        self.update(|figures| figures.setup_time = setup);
        Ok(())
    }

    /// Gives the guest away: after this it cannot be cancelled. The peer has so long to say that it
    /// has it, whatever a client wants; `None`: the connection is the peer's for ever.
    pub(crate) fn commit(&self, patience: Option<Duration>) -> Result<(), Error> {
        self.state.lock().patient_until = patience.map(|patience| Instant::now() + patience);
        self.step(Phase::Active, Phase::Committed)
    }

    /// Lets the guest go before its memory, if that was agreed on.
    pub fn go_early(&self) {
        self.early.store(true, Relaxed);
    }

    pub(crate) fn is_early_wanted(&self) -> bool {
        self.early.load(Relaxed)
    }

    /// The other side runs the guest before its memory is there.
    pub(crate) fn early(&self) {
        // It was given away, which cannot be cancelled.
        let _ = self.step(Phase::Committed, Phase::Postcopy);
    }

    fn step(&self, from: Phase, to: Phase) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.phase != from {
            return Err(Error::Cancelled);
        }
        state.phase = to;
        Ok(())
    }

    /// Fails when it is to end.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.phase() {
            Phase::Cancelling => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// It has ended so; with the reason, if it has failed.
    pub fn ended(&self, phase: Phase, error: Option<String>) {
        let total = millis(self.began.elapsed());
        self.update(|figures| figures.total_time = total);
        let mut state = self.state.lock();
        (state.phase, state.error, state.hang_up) = (phase, error, None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_away_cannot_be_cancelled_and_the_other_way_round() {
        let progress = Progress::default();
        progress.active().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        progress.hang_up_by(move || tell.send(()).unwrap());
        progress.commit(Some(Duration::from_secs(60))).unwrap();
        progress.cancel();
        assert_eq!(progress.phase(), Phase::Committed);
        told.try_recv().unwrap_err();
        // A peer that is silent for too long is not waited for.
        progress.state.lock().patient_until = Some(Instant::now());
        progress.cancel();
        assert_eq!(progress.phase(), Phase::Committed);
        told.try_recv().unwrap();

        // What would be lost with the connection is not cut off.
        let progress = Progress::default();
        progress.active().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        progress.hang_up_by(move || tell.send(()).unwrap());
        progress.commit(None).unwrap();
        progress.cancel();
        progress.early();
        progress.cancel();
        assert_eq!(progress.phase(), Phase::Postcopy);
        told.try_recv().unwrap_err();

        let progress = Progress::default();
        let (tell, told) = std::sync::mpsc::channel();
        progress.hang_up_by(move || tell.send(()).unwrap());
        progress.active().unwrap();
        progress.cancel();
        told.try_recv().unwrap();
        assert!(matches!(progress.commit(None), Err(Error::Cancelled)));
        progress.ended(Phase::Cancelled, None);
        progress.cancel();
        assert_eq!(progress.phase(), Phase::Cancelled);
    }
}
