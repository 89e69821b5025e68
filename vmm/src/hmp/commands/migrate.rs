//! Moving the guest to another process.

use qmp::{
    ClientMigrateInfo, Handle, Migrate, MigrateCancel, MigrateIncoming, MigrateSetCacheSize,
    MigrateSetCapabilities, MigrateSetDowntime, MigrateSetParameters, MigrateSetSpeed,
    MigrateStartPostcopy, MigrationCapability, MigrationCapabilityStatus, QmpError, QueryMigrate,
    QueryMigrateCacheSize, QueryMigrateCapabilities, QueryMigrateParameters,
};
use serde_json::{Value, json};

use crate::hmp::Call;
use crate::hmp::parse::{Args, Kind, arg, flag, opt};
use crate::hmp::table::{Row, bare, row};
use crate::vm::Vm;

pub(super) const ROWS: &[Row] = &[
    row(
        &["migrate"],
        &[flag("detach", b'd'), flag("blk", b'b'), flag("inc", b'i'), arg("uri", Kind::File)],
        "[-d] [-b] [-i] uri",
        "move the guest to where uri says",
        migrate,
    ),
    bare(&["migrate_cancel"], "end the migration; the guest stays", |call, _| {
        call.vm.handle(MigrateCancel {})
    }),
    row(
        &["migrate_incoming"],
        &[arg("uri", Kind::File)],
        "uri",
        "take over a guest (-incoming defer)",
        |call, args| call.vm.handle(MigrateIncoming { uri: args.text("uri").to_owned() }),
    ),
    row(
        &["migrate_set_cache_size"],
        &[arg("value", Kind::Size)],
        "value",
        "set the bytes of the cache for differences",
        |call, args| call.vm.handle(MigrateSetCacheSize { value: args.number("value") }),
    ),
    row(
        &["migrate_set_speed"],
        &[arg("value", Kind::Size)],
        "value",
        "limit the bytes a second of migrations",
        |call, args| call.vm.handle(MigrateSetSpeed { value: args.number("value") }),
    ),
    row(
        &["migrate_set_downtime"],
        &[arg("value", Kind::Seconds)],
        "value",
        "set how many seconds the guest may stand still",
        set_downtime,
    ),
    row(
        &["migrate_set_capability"],
        &[arg("capability", Kind::Word).words(capabilities), arg("state", Kind::Switch)],
        "capability on|off",
        "turn a capability of migrations on or off",
        set_capability,
    ),
    bare(&["migrate_start_postcopy"], "let the guest go before its memory", |call, _| {
        call.vm.handle(MigrateStartPostcopy {})
    }),
    row(
        &["migrate_set_parameter"],
        &[
            arg("parameter", Kind::Word).words(|_| PARAMETERS.map(str::to_owned).to_vec()),
            arg("value", Kind::Word),
        ],
        "parameter value",
        "set what migrations may use",
        set_parameter,
    ),
    row(
        &["client_migrate_info"],
        &[
            arg("protocol", Kind::Word),
            arg("hostname", Kind::Word),
            opt("port", Kind::Int),
            opt("tls-port", Kind::Int),
            opt("cert-subject", Kind::Word),
        ],
        "protocol hostname [port] [tls-port] [cert-subject]",
        "name the next host",
        client_info,
    ),
];

pub(super) const INFO: &[Row] = &[
    bare(&["migrate"], "show how the migration stands", info),
    bare(&["migrate_capabilities"], "show the capabilities of migrations", |call, _| {
        show_capabilities(call)
    }),
    bare(&["migrate_parameters"], "show what migrations may use", |call, _| show_parameters(call)),
    bare(&["migrate_cache_size"], "show the size of the cache for differences", |call, _| {
        let size = call.vm.handle(QueryMigrateCacheSize {})?;
        call.line(format_args!("xbzrel cache size: {} kbytes", size >> 10));
        Ok(())
    }),
];

/// Names the command in its error, as people know it.
fn named(command: &str, error: &QmpError) -> QmpError {
    QmpError::generic(format!("{command}: {}", error.desc))
}

const SET: &str = "migrate_set_capability";
const SET_PARAMETER: &str = "migrate_set_parameter";

fn migrate(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let (blk, inc) = (Some(args.is_on("blk")), Some(args.is_on("inc")));
    let uri = args.text("uri").to_owned();
    if !args.is_on("detach") {
        call.line("terminal does not allow synchronous migration, continuing detached");
    }
    let done = call.vm.handle(Migrate { uri, blk, inc, detach: Some(true) });
    done.map_err(|error| named("migrate", &error))
}

/// Those that can be set, in the order in which they are shown.
const PARAMETERS: [&str; 7] = [
    "compress-level",
    "tls-creds",
    "tls-hostname",
    "max-bandwidth",
    "downtime-limit",
    "multifd-channels",
    "xbzrle-cache-size",
];

fn set_parameter(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let (name, value) = (args.text("parameter"), args.text("value"));
    let failed = |error: QmpError| named(SET_PARAMETER, &error);
    if !PARAMETERS.contains(&name) {
        return Err(failed(QmpError::invalid(name)));
    }
    let value = match name.starts_with("tls-") {
        true => json!(value),
        false => match value.parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => return Err(failed(QmpError::invalid_type(name, "int"))),
        },
    };
    let given = serde_json::Map::from_iter([(name.to_owned(), value)]);
    qmp::call::<MigrateSetParameters, _>(call.vm, given).map(drop).map_err(failed)
}

fn show_parameters(call: &mut Call<'_>) -> Result<(), QmpError> {
    let all = qmp::call::<QueryMigrateParameters, _>(call.vm, serde_json::Map::new())?;
    for name in PARAMETERS {
        let unit = match name {
            "max-bandwidth" => " bytes/second",
            "downtime-limit" => " ms",
            "xbzrle-cache-size" => " bytes",
            _ => "",
        };
        match all.get(name) {
            Some(Value::String(text)) => call.line(format_args!("{name}: '{text}'")),
            Some(value) => call.line(format_args!("{name}: {value}{unit}")),
            None => {}
        }
    }
    Ok(())
}

fn set_downtime(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let value = args.opt_seconds("value").unwrap_or_default();
    call.vm.handle(MigrateSetDowntime { value })
}

fn set_capability(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let name = args.text("capability");
    let found = MigrationCapability::ALL.iter().find(|it| it.as_str() == name);
    let capability = *found.ok_or_else(|| named(SET, &QmpError::invalid(name)))?;
    let capabilities = vec![MigrationCapabilityStatus { state: args.is_on("state"), capability }];
    let rest = serde_json::Map::new();
    let done = call.vm.handle(MigrateSetCapabilities { capabilities, rest });
    done.map_err(|error| named(SET, &error))
}

fn capabilities(_: &Vm) -> Vec<String> {
    MigrationCapability::ALL.iter().map(|it| it.as_str().to_owned()).collect()
}

fn client_info(call: &mut Call<'_>, args: &Args) -> Result<(), QmpError> {
    let text = |name| args.opt_text(name).map(str::to_owned);
    call.vm.handle(ClientMigrateInfo {
        protocol: args.text("protocol").to_owned(),
        hostname: args.text("hostname").to_owned(),
        port: args.opt_number("port"),
        tls_port: args.opt_number("tls-port"),
        cert_subject: text("cert-subject"),
    })
}

fn show_capabilities(call: &mut Call<'_>) -> Result<(), QmpError> {
    call.print("capabilities: ");
    for MigrationCapabilityStatus { state, capability } in
        call.vm.handle(QueryMigrateCapabilities {})?
    {
        let state = if state { "on" } else { "off" };
        call.print(&format!("{}: {state} ", capability.as_str()));
    }
    call.print("\n");
    Ok(())
}

fn info(call: &mut Call<'_>, _: &Args) -> Result<(), QmpError> {
    let info = call.vm.handle(QueryMigrate {})?;
    let Some(status) = info.status else { return Ok(()) };
    show_capabilities(call)?;
    call.line(format_args!("Migration status: {status}"));
    call.line(format_args!("total time: {} milliseconds", info.total_time.unwrap_or(0)));
    for (name, value) in [
        ("expected downtime", info.expected_downtime),
        ("downtime", info.downtime),
        ("setup", info.setup_time),
    ] {
        if let Some(value) = value {
            call.line(format_args!("{name}: {value} milliseconds"));
        }
    }
    if let Some(ram) = info.ram {
        call.line(format_args!("transferred ram: {} kbytes", ram.transferred >> 10));
        call.line(format_args!("throughput: {:.2} mbps", ram.mbps));
        call.line(format_args!("remaining ram: {} kbytes", ram.remaining >> 10));
        call.line(format_args!("total ram: {} kbytes", ram.total >> 10));
        call.line(format_args!("duplicate: {} pages", ram.duplicate));
        call.line(format_args!("skipped: {} pages", ram.skipped));
        call.line(format_args!("normal: {} pages", ram.normal));
        call.line(format_args!("normal bytes: {} kbytes", ram.normal_bytes >> 10));
        if ram.dirty_pages_rate != 0 {
            call.line(format_args!("dirty pages rate: {} pages", ram.dirty_pages_rate));
        }
    }
    if let Some(percent) = info.cpu_throttle_percentage {
        call.line(format_args!("cpu throttle percentage: {percent}"));
    }
    if let Some(disk) = info.disk {
        call.line(format_args!("transferred disk: {} kbytes", disk.transferred >> 10));
        call.line(format_args!("remaining disk: {} kbytes", disk.remaining >> 10));
        call.line(format_args!("total disk: {} kbytes", disk.total >> 10));
    }
    if let Some(cache) = info.xbzrle_cache {
        call.line(format_args!("cache size: {} bytes", cache.cache_size));
        call.line(format_args!("xbzrle transferred: {} kbytes", cache.bytes >> 10));
        call.line(format_args!("xbzrle pages: {} pages", cache.pages));
        call.line(format_args!("xbzrle cache miss: {}", cache.cache_miss));
        call.line(format_args!("xbzrle overflow : {}", cache.overflow));
    }
    Ok(())
}
