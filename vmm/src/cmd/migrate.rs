//! Commands that move the guest to another process.
//!
//! Main thread. Names and numbers are a client's; where a stream goes to is its choice too.

use std::time::Duration;

use migration::blocks;
use migration::dest::postcopy_possible;
use migration::status::{Figures, Phase};
use qmp::{
    ClientMigrateInfo, ErrorClass, Handle, Migrate, MigrateCancel, MigrateSetCacheSize,
    MigrateSetCapabilities, MigrateSetDowntime, MigrateSetSpeed, MigrateStartPostcopy,
    MigrationCapability, MigrationCapabilityStatus, MigrationInfo, MigrationStats, QmpError,
    QueryMigrate, QueryMigrateCacheSize, QueryMigrateCapabilities, XBZRLECacheStats,
};
use resources::ram::PAGE;

use super::block::int;
use crate::vm::Vm;

impl Handle<Migrate> for Vm {
    fn handle(&mut self, command: Migrate) -> Result<(), QmpError> {
        let Migrate { uri, blk, inc, detach: _ } = command;
        self.check_movable()?;
        let inc = inc == Some(true);
        if inc || blk == Some(true) {
            self.copy_disks(inc);
        }
        self.migrate_to(&uri).inspect_err(|_| self.keep_disks())
    }
}

impl Handle<MigrateCancel> for Vm {
    fn handle(&mut self, _: MigrateCancel) -> Result<(), QmpError> {
        if let Some(progress) = self.migration.progress() {
            progress.cancel();
        }
        Ok(())
    }
}

impl Handle<MigrateStartPostcopy> for Vm {
    fn handle(&mut self, _: MigrateStartPostcopy) -> Result<(), QmpError> {
        if !self.migration.has(MigrationCapability::PostcopyRam) {
            return Err(QmpError::generic(
                "Enable postcopy with migrate_set_capability before the start of migration",
            ));
        }
        let Some(progress) = self.migration.progress() else {
            let text = "Postcopy must be started after migration has been started";
            return Err(QmpError::generic(text));
        };
        progress.go_early();
        Ok(())
    }
}

impl Handle<QueryMigrate> for Vm {
    fn handle(&mut self, _: QueryMigrate) -> Result<MigrationInfo, QmpError> {
        let mut info = MigrationInfo {
            expected_downtime: None,
            xbzrle_cache: None,
            status: None,
            disk: None,
            setup_time: None,
            total_time: None,
            ram: None,
            downtime: None,
            cpu_throttle_percentage: None,
        };
        let Some(progress) = self.migration.progress() else {
            let came = |filling| if filling { "postcopy-active" } else { "completed" };
            info.status = self.migration.filling().map(|filling| came(filling).to_owned());
            return Ok(info);
        };
        let figures = progress.figures();
        let status = match progress.phase() {
            Phase::Setup => "setup",
            Phase::Active | Phase::Cancelling | Phase::Committed => "active",
            Phase::Postcopy => "postcopy-active",
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Cancelled => "cancelled",
        };
        info.status = Some(status.to_owned());
        match status {
            "active" | "postcopy-active" => {
                info.expected_downtime = Some(int(figures.expected_downtime));
                info.disk = figures.disk.map(disk);
            }
            "completed" => info.downtime = Some(int(figures.downtime)),
            _ => return Ok(info),
        }
        info.setup_time = Some(int(figures.setup_time));
        info.total_time = Some(int(figures.total_time));
        let throttle =
            (status == "active" && figures.throttle > 0).then(|| figures.throttle.into());
        info.cpu_throttle_percentage = throttle;
        info.ram = Some(ram(&figures, status == "completed"));
        info.xbzrle_cache = figures.deltas.map(|deltas| XBZRLECacheStats {
            bytes: int(deltas.bytes),
            cache_size: int(deltas.cache_size),
            pages: int(deltas.pages),
            overflow: int(deltas.overflow),
            cache_miss: int(deltas.cache_miss),
        });
        Ok(info)
    }
}

/// Of the members only those of disks say something.
fn disk(figures: blocks::Figures) -> MigrationStats {
    MigrationStats {
        total: int(figures.total),
        remaining: int(figures.remaining),
        mbps: 0.0,
        transferred: int(figures.transferred),
        duplicate: 0,
        dirty_pages_rate: 0,
        skipped: 0,
        normal_bytes: 0,
        normal: 0,
    }
}

fn ram(figures: &Figures, completed: bool) -> MigrationStats {
    let now = |value: u64| if completed { 0 } else { int(value) };
    MigrationStats {
        total: int(figures.total),
        remaining: now(figures.remaining),
        mbps: figures.mbps,
        transferred: int(figures.transferred),
        duplicate: int(figures.zero),
        dirty_pages_rate: now(figures.dirty_rate),
        skipped: 0,
        normal_bytes: int(figures.normal.saturating_mul(PAGE)),
        normal: int(figures.normal),
    }
}

impl Handle<MigrateSetCapabilities> for Vm {
    fn handle(&mut self, command: MigrateSetCapabilities) -> Result<(), QmpError> {
        if self.migration.is_leaving() {
            return Err(QmpError::generic("There's a migration process in progress"));
        }
        let on = |wanted| command.capabilities.iter().any(|it| it.state && it.capability == wanted);
        if on(MigrationCapability::XRdmaPinAll) {
            return Err(QmpError::generic(
                "Capability 'x-rdma-pin-all' needs RDMA, which is not built in",
            ));
        }
        // Better to know now than when the guest is on its way.
        if self.awaited().is_some()
            && on(MigrationCapability::PostcopyRam)
            && let Err(reason) = postcopy_possible()
        {
            let text = format!("Post-copy is not possible here: {reason}");
            return Err(QmpError::generic(text));
        }
        let is_on = |wanted| {
            let said = command.capabilities.iter().rev().find(|it| it.capability == wanted);
            said.map_or(self.migration.has(wanted), |it| it.state)
        };
        use MigrationCapability::{Compress, Multifd, PostcopyRam, Xbzrle};
        for (one, other) in [(Multifd, Xbzrle), (Multifd, PostcopyRam), (Compress, PostcopyRam)] {
            if is_on(one) && is_on(other) {
                let (one, other) = (one.as_str(), other.as_str());
                let text = format!("Capabilities '{one}' and '{other}' exclude each other");
                return Err(QmpError::generic(text));
            }
        }
        for status in command.capabilities {
            self.migration.set(status.capability, status.state);
        }
        Ok(())
    }
}

impl Handle<QueryMigrateCapabilities> for Vm {
    fn handle(
        &mut self,
        _: QueryMigrateCapabilities,
    ) -> Result<Vec<MigrationCapabilityStatus>, QmpError> {
        let all = MigrationCapability::ALL.iter().copied();
        let all = all.map(|capability| MigrationCapabilityStatus {
            state: self.migration.has(capability),
            capability,
        });
        Ok(all.collect())
    }
}

impl Handle<MigrateSetSpeed> for Vm {
    fn handle(&mut self, MigrateSetSpeed { value }: MigrateSetSpeed) -> Result<(), QmpError> {
        self.migration.limits.set_bandwidth(u64::try_from(value).unwrap_or(0));
        Ok(())
    }
}

impl Handle<MigrateSetDowntime> for Vm {
    fn handle(&mut self, MigrateSetDowntime { value }: MigrateSetDowntime) -> Result<(), QmpError> {
        // What is no time, or longer than a process lives.
        let downtime = Duration::try_from_secs_f64(value.clamp(0.0, 1e9));
        self.migration.limits.set_downtime(downtime.unwrap_or_default());
        Ok(())
    }
}

impl Handle<MigrateSetCacheSize> for Vm {
    fn handle(&mut self, command: MigrateSetCacheSize) -> Result<(), QmpError> {
        let too_small = || {
            QmpError::expects(
                "xbzrle_cache_size",
                "a power of two no less than the target page size",
            )
        };
        let size = u64::try_from(command.value).map_err(|_| too_small())?;
        if size < PAGE {
            return Err(too_small());
        }
        self.migration.limits.set_cache(1 << size.ilog2());
        Ok(())
    }
}

impl Handle<QueryMigrateCacheSize> for Vm {
    fn handle(&mut self, _: QueryMigrateCacheSize) -> Result<i64, QmpError> {
        Ok(int(self.migration.limits.cache()))
    }
}

impl Handle<ClientMigrateInfo> for Vm {
    fn handle(&mut self, command: ClientMigrateInfo) -> Result<(), QmpError> {
        match &*command.protocol {
            "spice" => {
                let text = "Device 'spice' has not been activated";
                Err(QmpError::new(ErrorClass::DeviceNotActive, text))
            }
            _ => Err(QmpError::invalid("protocol")),
        }
    }
}
