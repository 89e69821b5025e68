//! Events on their way to the clients: when they happened, and how often a
//! client is told.
//!
//! Runs on the main thread without locks. A guest can raise some events as fast
//! as it likes (it sets its clock in a loop); [`Throttle`] lets one of a kind
//! through per period and keeps one, the newest.

use crate::Event;
use serde_json::{Map, Value};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An event and the wall clock when it was raised.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    /// What happened.
    pub event: Event,
    /// When.
    pub at: SystemTime,
}

impl Raised {
    /// An event that happens now.
    pub fn now(event: Event) -> Self {
        Self { event, at: SystemTime::now() }
    }

    /// The message: timestamp, event, data.
    pub fn message(&self) -> Value {
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut message = Map::new();
        message.insert(
            "timestamp".into(),
            serde_json::json!({
                "seconds": since.as_secs(),
                "microseconds": since.subsec_micros(),
            }),
        );
        if let Ok(Value::Object(event)) = serde_json::to_value(&self.event) {
            message.extend(event);
        }
        Value::Object(message)
    }
}

/// Holds back events of the kinds that have a period.
///
/// The first of a kind passes at once. Another within the period waits for its
/// end, and gives way to a newer one; its passing starts the next period.
#[derive(Debug, Default)]
pub struct Throttle {
    kinds: Vec<Kind>,
}

#[derive(Debug)]
struct Kind {
    name: &'static str,
    /// When the period ends.
    until: Instant,
    period: Duration,
    waiting: Option<Raised>,
}

impl Throttle {
    /// Takes an event at the time `now`; gives it back if it is to be sent.
    pub fn offer(&mut self, raised: Raised, now: Instant) -> Option<Raised> {
        let Some(period) = raised.event.rate_limit() else { return Some(raised) };
        let name = raised.event.name();
        let until = now.checked_add(period).unwrap_or(now);
        match self.kinds.iter_mut().find(|kind| kind.name == name) {
            None => self.kinds.push(Kind { name, until, period, waiting: None }),
            Some(kind) if kind.waiting.is_none() && kind.until <= now => kind.until = until,
            Some(kind) => {
                kind.waiting = Some(raised);
                return None;
            }
        }
        Some(raised)
    }

    /// The events whose wait is over at the time `now`, oldest wait first.
    pub fn due(&mut self, now: Instant) -> Vec<Raised> {
        let mut due: Vec<_> = self
            .kinds
            .iter_mut()
            .filter(|kind| kind.until <= now)
            .filter_map(|kind| {
                let waited = kind.until;
                let raised = kind.waiting.take()?;
                kind.until = now.checked_add(kind.period).unwrap_or(now);
                Some((waited, raised))
            })
            .collect();
        due.sort_by_key(|(waited, _)| *waited);
        due.into_iter().map(|(_, raised)| raised).collect()
    }

    /// When to call [`Self::due`] next; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.kinds.iter().filter(|kind| kind.waiting.is_some()).map(|kind| kind.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtc(offset: i64) -> Raised {
        Raised {
            event: Event::RtcChange { offset },
            at: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_007),
        }
    }

    #[test]
    fn message_is_as_documented() {
        assert_eq!(
            rtc(-3).message().to_string(),
            r#"{"timestamp":{"seconds":1700000000,"microseconds":7},"event":"RTC_CHANGE","data":{"offset":-3}}"#
        );
        let stop = Raised { event: Event::Stop, at: UNIX_EPOCH };
        assert_eq!(
            stop.message().to_string(),
            r#"{"timestamp":{"seconds":0,"microseconds":0},"event":"STOP"}"#
        );
    }

    #[test]
    fn unlimited_events_pass() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..5 {
            assert!(throttle.offer(Raised::now(Event::Stop), now).is_some());
        }
        assert_eq!(throttle.deadline(), None);
    }

    #[test]
    fn newest_passes_when_the_period_ends() {
        let (mut throttle, t0) = (Throttle::default(), Instant::now());
        let ms = |n| t0 + Duration::from_millis(n);
        assert_eq!(throttle.offer(rtc(1), ms(0)), Some(rtc(1)));
        assert_eq!(throttle.offer(rtc(2), ms(100)), None);
        assert_eq!(throttle.offer(rtc(3), ms(900)), None);
        assert_eq!(throttle.deadline(), Some(ms(1000)));
        assert_eq!(throttle.due(ms(999)), []);
        assert_eq!(throttle.due(ms(1000)), [rtc(3)]);
        assert_eq!(throttle.deadline(), None);
        // That one started a period of its own.
        assert_eq!(throttle.offer(rtc(4), ms(1500)), None);
        assert_eq!(throttle.due(ms(2000)), [rtc(4)]);
        assert_eq!(throttle.due(ms(9000)), []);
        assert_eq!(throttle.offer(rtc(5), ms(9000)), Some(rtc(5)));
    }

    #[test]
    fn kinds_do_not_hold_each_other_back() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let watchdog = Event::Watchdog { action: crate::WatchdogAction::None };
        assert!(throttle.offer(rtc(1), now).is_some());
        assert!(throttle.offer(Raised::now(watchdog), now).is_some());
    }

    #[test]
    fn a_late_tick_does_not_let_a_newcomer_overtake() {
        let (mut throttle, t0) = (Throttle::default(), Instant::now());
        throttle.offer(rtc(1), t0);
        throttle.offer(rtc(2), t0);
        let late = t0 + Duration::from_secs(5);
        assert_eq!(throttle.offer(rtc(3), late), None);
        assert_eq!(throttle.due(late), [rtc(3)]);
    }
}
