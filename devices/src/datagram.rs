//! What the host tells of datagrams that were sent. No state.

use rustix::io::Errno;

/// Whether an error of a socket of datagrams is no end of it: it is of an earlier datagram of ours
/// that was lost on its way, as whoever had it said (ICMP, in the words of `icmp(7)`), or of this
/// moment. Anybody on the way can say so at any time.
pub(crate) fn is_passing(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::NETUNREACH
            | Errno::NETDOWN
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO
            | Errno::ACCESS
            | Errno::PERM
            | Errno::MSGSIZE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::INTR
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_of_a_datagram_passes() {
        // What the kernel makes of ICMP's "destination unreachable", codes 0 to 15, and of ICMPv6.
        for error in [101, 113, 92, 111, 90, 95, 112, 64, 13, 71].map(Errno::from_raw_os_error) {
            assert!(is_passing(error), "{error}");
        }
        assert!(!is_passing(Errno::WOULDBLOCK) && !is_passing(Errno::BADF));
    }
}
