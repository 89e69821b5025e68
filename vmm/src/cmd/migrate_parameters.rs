//! Commands about what migrations may use.
//!
//! Main thread. Names and numbers are a client's; a name of credentials is only looked up when a
//! migration begins.

use std::time::Duration;

use migration::compress::LEVELS;
use migration::multifd::MOST;
use qmp::{
    Handle, MigrateIncoming, MigrateSetParameters, MigrationParameters, QmpError,
    QueryMigrateParameters,
};
use resources::ram::PAGE;

use super::block::int;
use crate::vm::Vm;

/// The longest time a guest may stand still, in milliseconds.
const LONGEST: i64 = 2_000_000;

impl Handle<MigrateSetParameters> for Vm {
    fn handle(&mut self, command: MigrateSetParameters) -> Result<(), QmpError> {
        let MigrateSetParameters {
            xbzrle_cache_size,
            compress_level,
            multifd_channels,
            downtime_limit,
            tls_creds,
            tls_hostname,
            max_bandwidth,
        } = command;
        // All are checked before one is set.
        let cache = xbzrle_cache_size.map(cache_size).transpose()?;
        let level = compress_level.map(compress_level_of).transpose()?;
        let channels = multifd_channels.map(channels_of).transpose()?;
        let downtime = downtime_limit.map(downtime_of).transpose()?;
        let bandwidth = max_bandwidth.map(bandwidth_of).transpose()?;
        let parameters = &mut self.migration.parameters;
        parameters.level = level.unwrap_or(parameters.level);
        parameters.channels = channels.unwrap_or(parameters.channels);
        if let Some(name) = tls_creds {
            parameters.tls_creds = name;
        }
        if let Some(name) = tls_hostname {
            parameters.tls_hostname = name;
        }
        let limits = &self.migration.limits;
        cache.into_iter().for_each(|bytes| limits.set_cache(bytes));
        downtime.into_iter().for_each(|downtime| limits.set_downtime(downtime));
        bandwidth.into_iter().for_each(|bytes| limits.set_bandwidth(bytes));
        Ok(())
    }
}

fn cache_size(value: i64) -> Result<u64, QmpError> {
    let size = u64::try_from(value).ok().filter(|size| *size >= PAGE && size.is_power_of_two());
    let what = "a power of two no less than the target page size";
    size.ok_or_else(|| QmpError::expects("xbzrle_cache_size", what))
}

fn compress_level_of(value: i64) -> Result<i32, QmpError> {
    let level = i32::try_from(value).ok().filter(|level| LEVELS.contains(level));
    let (low, high) = (LEVELS.start(), LEVELS.end());
    let what = format!("a value between {low} and {high}");
    level.ok_or_else(|| QmpError::expects("compress_level", &what))
}

fn channels_of(value: i64) -> Result<u8, QmpError> {
    let channels = u8::try_from(value).ok().filter(|count| (1..=MOST).contains(count));
    let what = format!("a value between 1 and {MOST}");
    channels.ok_or_else(|| QmpError::expects("multifd_channels", &what))
}

fn downtime_of(value: i64) -> Result<Duration, QmpError> {
    let millis = u64::try_from(value).ok().filter(|_| value <= LONGEST);
    let what = format!("an integer in the range of 0 to {} seconds", LONGEST / 1000);
    millis.map(Duration::from_millis).ok_or_else(|| QmpError::expects("downtime_limit", &what))
}

fn bandwidth_of(value: i64) -> Result<u64, QmpError> {
    let what = format!("an integer in the range of 0 to {} bytes/second", i64::MAX);
    u64::try_from(value).map_err(|_| QmpError::expects("max_bandwidth", &what))
}

impl Handle<QueryMigrateParameters> for Vm {
    fn handle(&mut self, _: QueryMigrateParameters) -> Result<MigrationParameters, QmpError> {
        let (parameters, limits) = (&self.migration.parameters, &self.migration.limits);
        let downtime = limits.downtime().as_millis();
        Ok(MigrationParameters {
            xbzrle_cache_size: int(limits.cache()),
            compress_level: parameters.level.into(),
            multifd_channels: parameters.channels.into(),
            downtime_limit: i64::try_from(downtime).unwrap_or(i64::MAX),
            tls_creds: parameters.tls_creds.clone(),
            tls_hostname: parameters.tls_hostname.clone(),
            max_bandwidth: int(limits.bandwidth()),
        })
    }
}

impl Handle<MigrateIncoming> for Vm {
    fn handle(&mut self, MigrateIncoming { uri }: MigrateIncoming) -> Result<(), QmpError> {
        let refused = |text: &str| Err(QmpError::generic(text));
        match self.awaited() {
            None => refused("'-incoming' was not specified on the command line"),
            Some(incoming) if !incoming.is_deferred() => {
                refused("The incoming migration has already been started")
            }
            Some(_) => {
                self.receive_from(&uri).map_err(|error| QmpError::generic(error.to_string()))
            }
        }
    }
}
