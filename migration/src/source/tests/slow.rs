//! Destinations that become slow when the guest stands still, or runs there.

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::*;

/// A machine all of whose memory is to be sent when it stops.
struct Whole {
    ram: Arc<RamBlock>,
    stopped: Arc<AtomicBool>,
    /// Where a channel goes, if there is one.
    way: Option<UnixStream>,
}

impl Machine for Whole {
    fn harvest(&mut self) -> Result<(), String> {
        if self.stopped.load(SeqCst) {
            self.ram.mark_range(0, self.ram.size());
        }
        Ok(())
    }
    fn switch_over(&mut self) -> Result<Vec<Section>, String> {
        self.stopped.store(true, SeqCst);
        Ok(vec![Section { name: "cpu".to_owned(), blob: Blob::new(1, &7u32).unwrap() }])
    }
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn connect(&mut self) -> Result<Box<dyn Link + Send>, String> {
        Ok(Box::new(channel(self.way.take().unwrap())))
    }
}

/// Takes what comes, but from when the guest stands still no more than 100 KB a second, and that for
/// no longer than the test may take.
fn take(mut from: UnixStream, stopped: &AtomicBool) {
    let (mut bytes, began) = (vec![0; 1 << 16], Instant::now());
    while began.elapsed() < Duration::from_secs(15) {
        let slow = stopped.load(SeqCst);
        let room = if slow { 2000 } else { bytes.len() };
        if from.read(&mut bytes[..room]).is_ok_and(|count| count == 0) {
            break;
        }
        if slow {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Moves a guest to such a destination, with a channel for memory or without.
fn to_a_slow_one(channels: u8) -> Outcome {
    let ram = RamBlock::anonymous(512 * PAGE).unwrap();
    (0..512).for_each(|page| ram.write(page * PAGE, &[page as u8 | 1]));
    let [(a, b), (c, d)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    // It is soon seen that something was taken.
    let _ = [&a, &c].map(|socket| set_socket_send_buffer_size(socket, 16 << 10).unwrap());
    let stopped = Arc::<AtomicBool>::default();
    let mut here = Whole { ram: ram.clone(), stopped: stopped.clone(), way: Some(c) };
    (&b).write_all(&said(answer::PONG, &[0, 0, 0, 1]).repeat(2)).unwrap();
    let (mut main, progress) = (channel(a), Arc::default());
    let limits = Arc::new(Limits::default());
    // It takes long enough to be measured.
    limits.set_bandwidth(8 << 20);
    let blocks = vec![Block { name: "ram".to_owned(), ram }];
    thread::scope(|scope| {
        let _ = [b, d].map(|socket| scope.spawn(|| take(socket, &stopped)));
        let wants = Wants { channels, ..Wants::default() };
        let outcome = send(&mut main, blocks, &inventory(), &mut here, &limits, &progress, wants);
        drop((main, here));
        outcome
    })
}

#[test]
fn a_destination_that_takes_the_rest_far_slower_than_all_before_is_given_up() {
    let both = [0, 1].map(|channels| thread::spawn(move || to_a_slow_one(channels)));
    for outcome in both.map(|thread| thread.join().unwrap()) {
        let Outcome::Stayed(Error::Io(error)) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(error.to_string(), "the other side of the migration took too long");
    }
}

#[test]
fn half_an_answer_does_not_keep_memory_waiting() {
    let answers = [vec![late()], handed_over()].concat();
    let (outcome, _) = answered(&answers, true, |socket, _| {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = said(answer::REQUEST, &[0; 9]);
        let (half, other) = request.split_at(7);
        socket.write_all(&said(answer::RUNNING, &[])).unwrap();
        socket.write_all(half).unwrap();
        // Nothing is heard if all memory waits for the other half.
        hear(socket, command::ALL_SENT);
        socket.write_all(&[other, &said(answer::FULL, &[])].concat()).unwrap();
    });
    assert!(matches!(outcome, Outcome::Moved), "{outcome:?}");
}
