//! What a drive is opened from, of its options.
//!
//! Pure data. Options are the user's or a client's.

use block::throttle::Given;
use block::{Cache, Limits, OnError, Options, Policy, Spec};

use super::{DriveError, wrong};

/// A drive as its options ask for it.
pub(super) struct Wanted {
    /// What happens with failed requests.
    pub(super) policy: Policy,
    /// The serial number of the disk.
    pub(super) serial: Option<String>,
    /// What limits it.
    pub(super) limits: Limits,
    /// Its medium, and what that is called in messages.
    pub(super) medium: Option<(Spec, String)>,
}

impl Wanted {
    /// What all options of a drive ask for that are not about its place; what is for its format
    /// and its protocol stays in the medium's.
    pub(super) fn parse(id: &str, mut options: Options) -> Result<Wanted, DriveError> {
        if options.take("boot").is_some() {
            tracing::warn!("-drive: boot= has no effect, use bootindex= of the device");
        }
        let read = on_error(options.take("rerror"), "read", OnError::Report)?;
        let write = on_error(options.take("werror"), "write", OnError::Enospc)?;
        let serial = options.take("serial");
        let given = limits(&mut options)?;
        let limits = given.limits().map_err(|error| DriveError(error.to_string()))?;
        let name = options.get("file").unwrap_or(id).to_owned();
        let medium = medium(id, options)?.map(|spec| (spec, name));
        Ok(Wanted { policy: Policy { read, write }, serial, limits, medium })
    }
}

/// The graph that options ask for; `None` for an empty drive.
fn medium(id: &str, mut options: Options) -> Result<Option<Spec>, DriveError> {
    let snapshot = options.take_switch("snapshot")?.unwrap_or(false);
    let mut cache = cache(&mut options)?;
    if snapshot {
        cache = Cache { writeback: true, direct: false, no_flush: true };
    }
    let threads = match options.take("aio").as_deref() {
        None | Some("native" | "io_uring") => false,
        Some("threads") => true,
        Some(_) => return wrong("invalid aio option"),
    };
    let discard = match options.take("discard").as_deref() {
        None | Some("ignore" | "off") => false,
        Some("unmap" | "on") => true,
        Some(_) => return wrong("invalid discard option"),
    };
    let detect_zeroes = block::detect::wanted(&mut options, discard)?;
    let old_name = options.take_switch("readonly")?;
    let read_only = options.take_switch("read-only")?.or(old_name).unwrap_or(false);
    let mut copy_on_read = options.take_switch("copy-on-read")?.unwrap_or(false);
    if copy_on_read && read_only {
        tracing::warn!("disabling copy-on-read on read-only drive");
        copy_on_read = false;
    }
    if let Some(format) = options.take("format") {
        if block::format::usable(&format).is_none() && block::protocol::named(&format).is_none() {
            return wrong(format!("'{format}' invalid format"));
        }
        if options.get("driver").is_none() {
            options.set("driver", &format);
        }
    }
    let filename = options.take("file").filter(|name| !name.is_empty());
    if filename.is_none() && options.is_empty() {
        return Ok(None);
    }
    let flags =
        Spec { read_only, cache, discard, detect_zeroes, threads, snapshot, ..Spec::default() };
    let device = id.to_owned();
    Ok(Some(Spec { filename, options, device, copy_on_read, ..flags }))
}

fn cache(options: &mut Options) -> Result<Cache, DriveError> {
    let mut cache = match options.take("cache") {
        None => Cache::default(),
        Some(name) => Cache::named(&name).ok_or(DriveError("invalid cache option".to_owned()))?,
    };
    for (key, value) in [
        ("cache.writeback", &mut cache.writeback),
        ("cache.direct", &mut cache.direct),
        ("cache.no-flush", &mut cache.no_flush),
    ] {
        if let Some(on) = options.take_switch(key)? {
            *value = on;
        }
    }
    Ok(cache)
}

fn on_error(word: Option<String>, which: &str, default: OnError) -> Result<OnError, DriveError> {
    match word.as_deref() {
        None => Ok(default),
        Some("report") => Ok(OnError::Report),
        Some("ignore") => Ok(OnError::Ignore),
        Some("stop") => Ok(OnError::Stop),
        Some("enospc") if which == "write" => Ok(OnError::Enospc),
        Some(word) => wrong(format!("'{word}' invalid {which} error action")),
    }
}

/// The limits, which have an old name and a new one each.
fn limits(options: &mut Options) -> Result<Given, DriveError> {
    let mut given = Given::default();
    let mut number = |old: &str, new: &str| -> Result<i64, DriveError> {
        let mut found = 0;
        for key in [format!("throttling.{new}"), old.to_owned()] {
            let Some(text) = options.take(&key) else { continue };
            let number = text.parse();
            found =
                number.map_err(|_| DriveError(format!("Parameter '{key}' expects a number")))?;
        }
        Ok(found)
    };
    let sides = [("", "-total"), ("_rd", "-read"), ("_wr", "-write")];
    for (index, (old, new)) in sides.into_iter().enumerate() {
        for (what, average, burst) in [
            ("bps", &mut given.bps, &mut given.bps_max),
            ("iops", &mut given.iops, &mut given.iops_max),
        ] {
            if let (Some(average), Some(burst)) = (average.get_mut(index), burst.get_mut(index)) {
                *average = number(&format!("{what}{old}"), &format!("{what}{new}"))?;
                *burst = number(&format!("{what}{old}_max"), &format!("{what}{new}-max"))?;
            }
        }
    }
    given.iops_size = number("iops_size", "iops-size")?;
    Ok(given)
}
