//! Times as the registers hold them: in binary or in decimal digits, with 12 hours or with 24.
//!
//! Under the device's mutex. The guest may write any byte into a time register.

use resources::props::Value;
use time::{Date, Month, OffsetDateTime};

use super::{
    B_24_HOURS, B_BINARY, CENTURY, DAY, HOURS, MINUTES, MONTH, PM, Rtc, SECONDS, WEEKDAY, YEAR,
};

impl Rtc {
    fn encode_number(&self, value: u8) -> u8 {
        if self.on(B_BINARY) { value } else { ((value / 10 % 10) << 4) | (value % 10) }
    }

    pub(super) fn decode_number(&self, value: u8) -> u8 {
        if self.on(B_BINARY) {
            value
        } else {
            (value >> 4).wrapping_mul(10).wrapping_add(value & 15)
        }
    }

    fn encode_hours(&self, hours: u8) -> u8 {
        if self.on(B_24_HOURS) {
            return self.encode_number(hours);
        }
        let twelve = match hours % 12 {
            0 => 12,
            hours => hours,
        };
        self.encode_number(twelve) | if hours >= 12 { PM } else { 0 }
    }

    pub(super) fn decode_hours(&self, value: u8) -> u8 {
        if self.on(B_24_HOURS) {
            return self.decode_number(value);
        }
        let hours = self.decode_number(value & !PM) % 12;
        if value & PM != 0 { hours.saturating_add(12) } else { hours }
    }

    /// The time register's value at a time.
    pub(super) fn encode(&self, register: u8, at: OffsetDateTime) -> u8 {
        let part = |value: i32| u8::try_from(value).unwrap_or(0);
        match register {
            SECONDS => self.encode_number(at.second()),
            MINUTES => self.encode_number(at.minute()),
            HOURS => self.encode_hours(at.hour()),
            WEEKDAY => self.encode_number(at.weekday().number_from_sunday()),
            DAY => self.encode_number(at.day()),
            MONTH => self.encode_number(at.month().into()),
            YEAR => self.encode_number(part(at.year().rem_euclid(100))),
            _ => self.encode_number(part(at.year().div_euclid(100))),
        }
    }

    /// The time that the registers hold, in seconds. Fields beyond their range carry over into
    /// the next, as `mktime` does.
    pub(super) fn decode(&self) -> i64 {
        let number = |index| i64::from(self.decode_number(self.get(index)));
        let year = number(CENTURY).saturating_mul(100).saturating_add(number(YEAR));
        let month = Month::try_from(self.decode_number(self.get(MONTH)).clamp(1, 12));
        let year = i32::try_from(year.clamp(0, 9999)).unwrap_or(0);
        let first = Date::from_calendar_date(year, month.unwrap_or(Month::January), 1);
        let first = first.unwrap_or(Date::MIN).midnight().assume_utc().unix_timestamp();
        let hours = i64::from(self.decode_hours(self.get(HOURS)));
        first
            .saturating_add(number(DAY).saturating_sub(1).saturating_mul(86400))
            .saturating_add(hours.saturating_mul(3600))
            .saturating_add(number(MINUTES).saturating_mul(60))
            .saturating_add(number(SECONDS))
    }
}

/// The time of so many seconds since 1970, or the nearest that can be told.
pub(super) fn date_time(seconds: i64) -> OffsetDateTime {
    let (first, last) = (Date::MIN.midnight(), Date::MAX.midnight());
    let range = (first.assume_utc().unix_timestamp(), last.assume_utc().unix_timestamp());
    OffsetDateTime::from_unix_timestamp(seconds.clamp(range.0, range.1))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time as C's `struct tm` has it: months from 0, years from 1900.
pub(super) fn broken_down(time: OffsetDateTime) -> Value {
    let int = |number: u8| Value::Int(number.into());
    Value::Struct(vec![
        ("tm_year", Value::Int(i64::from(time.year()).saturating_sub(1900))),
        ("tm_sec", int(time.second())),
        ("tm_hour", int(time.hour())),
        ("tm_min", int(time.minute())),
        ("tm_mon", int(u8::from(time.month()).saturating_sub(1))),
        ("tm_mday", int(time.day())),
    ])
}
