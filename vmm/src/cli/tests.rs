//! Tests of whole command lines: what they mean, and each message.

use super::config::{MemConfig, RtcBase, RtcClock};
use super::*;
use proptest::prelude::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use time::macros::datetime;

fn run(args: &[&str]) -> Result<Action, CliError> {
    parse(args.iter().map(OsString::from))
}

/// The configuration of options without spaces in them.
pub(super) fn config(options: &str) -> Config {
    let args: Vec<&str> = options.split_whitespace().collect();
    match run(&args).unwrap() {
        Action::Run(config) => *config,
        other => panic!("{other:?}"),
    }
}

fn error(options: &str) -> String {
    let args: Vec<&str> = options.split_whitespace().collect();
    run(&args).expect_err(options).to_string()
}

fn action(options: &str) -> Action {
    let args: Vec<&str> = options.split_whitespace().collect();
    run(&args).unwrap()
}

#[test]
fn nothing_means_the_defaults() {
    let config = config("");
    assert_eq!(config, Config::default());
    assert_eq!(config.memory.size, 128 << 20);
    assert_eq!(config.memory.max, 128 << 20);
    assert_eq!(config.accel, Accel::Kvm);
}

#[test]
fn one_dash_or_two() {
    assert!(config("--no-reboot -no-shutdown --S").no_reboot);
    assert_eq!(error("---S"), "--S: invalid option (did you mean -S?)");
}

#[test]
fn unknown_options_name_the_nearest() {
    assert_eq!(error("-machin pc"), "-machin: invalid option (did you mean -machine?)");
    assert_eq!(error("--kernal x"), "-kernal: invalid option (did you mean -kernel?)");
    assert_eq!(error("-kernel=x"), "-kernel=x: invalid option (did you mean -kernel?)");
    assert_eq!(error("-teleport"), "-teleport: invalid option");
    assert_eq!(error("disk.img"), "disk.img: not an option; options begin with '-'");
    assert_eq!(error("-"), "-: not an option; options begin with '-'");
    assert_eq!(error("-kernel"), "-kernel: requires an argument");
    assert_eq!(error("--m"), "-m: requires an argument");
}

#[test]
fn messages_are_short_and_without_control_characters() {
    let error = run(&[&format!("-x\x1b[31m{}", "y".repeat(100_000))]).unwrap_err().to_string();
    assert!(error.len() < 200, "{error}");
    assert!(error.starts_with("-x?[31myy"), "{error}");
    let error = run(&["-smp", &format!("cpus={}", "z".repeat(4000))]).unwrap_err().to_string();
    assert!(error.len() < 250, "{error}");
    assert!(error.ends_with("...: Parameter 'cpus' expects a number"), "{error}");
}

#[test]
fn boot_options() {
    let args = ["-kernel", "a,b", "-initrd", "x=y", "-append", "root=/dev/vda,,rw quiet"];
    let Action::Run(config) = run(&args).unwrap() else { panic!() };
    assert_eq!(config.kernel.as_deref(), Some(Path::new("a,b")));
    assert_eq!(config.initrd.as_deref(), Some(Path::new("x=y")));
    assert_eq!(config.append.as_deref(), Some("root=/dev/vda,,rw quiet"));
    let long = "x".repeat(100_000);
    let Action::Run(config) = run(&["-kernel", "k", "-append", &long]).unwrap() else { panic!() };
    assert_eq!(config.append.map(|text| text.len()), Some(100_000));
    assert_eq!(error("-initrd x"), "-initrd only allowed with -kernel option");
    assert_eq!(error("-append x"), "-append only allowed with -kernel option");
    assert_eq!(run(&["-bios", ""]).unwrap_err().to_string(), "-bios: the path is empty");
}

#[test]
fn paths_are_bytes_and_text_is_utf8() {
    let odd = OsStr::from_bytes(b"k\xff");
    let args = |name: &str| [OsString::from(name), odd.to_owned()];
    let Action::Run(config) = parse(args("-kernel")).unwrap() else { panic!() };
    assert_eq!(config.kernel.as_deref(), Some(Path::new(odd)));
    assert_eq!(parse(args("-cpu")).unwrap_err().to_string(), "-cpu k\u{fffd}: not valid UTF-8");
}

#[test]
fn memory() {
    let size = |options: &str| config(options).memory.size;
    assert_eq!(size("-m 512"), 512 << 20);
    assert_eq!(size("-m 0"), 128 << 20);
    assert_eq!(size("-m 2G"), 2 << 30);
    assert_eq!(size("-m size=1.5g"), 3 << 29);
    assert_eq!(size("-m 1b"), 8 << 10);
    assert_eq!(size("-m 8193b"), 16 << 10);
    assert_eq!(size("-m 4T"), MemConfig::MAX);
    let memory = config("-m 1G,slots=4,maxmem=8G -mem-path /dev/hugepages -mem-prealloc").memory;
    assert_eq!((memory.size, memory.slots, memory.max), (1 << 30, 4, 8 << 30));
    assert_eq!(memory.path.as_deref(), Some(Path::new("/dev/hugepages")));
    assert!(memory.prealloc);
    // Repetitions add up.
    assert_eq!(config("-m 1G -m slots=1,maxmem=2G").memory.size, 1 << 30);

    assert_eq!(error("-m lots"), "-m lots: invalid ram size: lots");
    assert_eq!(error("-m -1"), "-m -1: invalid ram size: -1");
    assert_eq!(error("-m 5T"), "-m 5T: ram size too large: 5T (at most 4T)");
    assert_eq!(error("-m 16383P"), "-m 16383P: ram size too large: 16383P (at most 4T)");
    assert_eq!(error("-m 1G,slots=2"), "-m 1G,slots=2: 'slots' needs 'maxmem'");
    assert_eq!(
        error("-m 1G,slots=257,maxmem=2G"),
        "-m 1G,slots=257,maxmem=2G: invalid number of memory slots: 257 (at most 256)"
    );
    assert_eq!(
        error("-m 1G,slots=1,maxmem=1M"),
        "-m 1G,slots=1,maxmem=1M: 'maxmem' (0x100000 bytes) is smaller than 'size' \
         (0x40000000 bytes)"
    );
    assert_eq!(error("-m 1G,maxmem=2G"), "-m 1G,maxmem=2G: 'maxmem' above 'size' needs 'slots'");
    assert_eq!(
        error("-m 1G,slot=2"),
        "-m 1G,slot=2: Invalid parameter 'slot' (did you mean 'slots'?)"
    );
}

#[test]
fn machine_and_accelerator() {
    let config = config("-machine pc,usb=off -machine accel=qtest,kernel-irqchip -M nousb");
    assert_eq!(config.machine.as_deref(), Some("nousb"));
    assert_eq!(config.accel, Accel::Qtest);
    assert_eq!(config.machine_options.switch("usb"), Some(false));
    assert_eq!(config.machine_options.switch("kernel_irqchip"), Some(true));
    assert_eq!(config.machine_options.switch("mem-merge"), None);
}

#[test]
fn accelerators() {
    assert_eq!(config("-machine pc,accel=qtest").accel, Accel::Qtest);
    assert_eq!(config("-accel qtest").machine_options.get("accel"), Some("qtest"));
    assert_eq!(config("-accel qtest -enable-kvm").accel, Accel::Kvm);
    assert_eq!(config("-accel kvm").dirty_ring, None);
    assert_eq!(config("-accel kvm,dirty-ring-size=4096").dirty_ring, Some(4096));
    assert_eq!(config("-accel kvm,dirty-ring-size=0").dirty_ring, None);
    assert_eq!(
        error("-accel kvm,dirty-ring-size=100"),
        "-accel kvm,dirty-ring-size=100: dirty-ring-size must be a power of two."
    );
    assert_eq!(config("-machine accel=tcg:kvm").accel, Accel::Kvm);
    assert_eq!(
        error("-machine pc,accel=tcg"),
        "-machine pc,accel=tcg: \"tcg\" accelerator does not exist. (valid: kvm, qtest)"
    );
    assert_eq!(
        error("-accel qtst"),
        "-accel qtst: \"qtst\" accelerator does not exist. (did you mean 'qtest'?)"
    );
    assert_eq!(action("-accel help"), Action::Print("kvm\nqtest\n".to_owned()));
}

#[test]
fn machine_parameters_that_are_options() {
    let config = config("-machine kernel=k,initrd=i,append=a,,b,firmware=f -kernel k2");
    assert_eq!(config.kernel.as_deref(), Some(Path::new("k2")));
    assert_eq!(config.initrd.as_deref(), Some(Path::new("i")));
    assert_eq!(config.append.as_deref(), Some("a,b"));
    assert_eq!(config.bios.as_deref(), Some(Path::new("f")));
    assert_eq!(error("-machine kernel="), "-machine kernel=: Parameter 'kernel' is empty");
    assert_eq!(
        error("-machine pc,usb=maybe"),
        "-machine pc,usb=maybe: Parameter 'usb' expects 'on' or 'off'"
    );
    assert_eq!(
        error("-machine pc,acel=kvm"),
        "-machine pc,acel=kvm: Invalid parameter 'acel' (did you mean 'accel'?)"
    );
}

#[test]
fn processors() {
    let config = config("-cpu qemu64,+vmx,-smep -smp 4 -smp cores=2,threads=2");
    assert_eq!(config.cpu.as_deref(), Some("qemu64,+vmx,-smep"));
    assert_eq!(
        config.smp.iter().collect::<Vec<_>>(),
        [("cpus", "4"), ("cores", "2"), ("threads", "2")]
    );
    assert_eq!(error("-smp four"), "-smp four: Parameter 'cpus' expects a number");
    assert_eq!(
        error("-smp 4,core=2"),
        "-smp 4,core=2: Invalid parameter 'core' (did you mean 'cores'?)"
    );
}

#[test]
fn names_and_uuid() {
    let config = config("-name vm,,1,process=p -uuid 01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!(config.name.guest.as_deref(), Some("vm,1"));
    assert_eq!(config.name.process.as_deref(), Some("p"));
    assert_eq!(
        config.uuid.map(|uuid| uuid.to_string()).as_deref(),
        Some("01234567-89ab-cdef-0123-456789abcdef")
    );
    assert!(error("-name a,b").ends_with("Unknown subargument b=on to -name"));
    assert_eq!(
        error("-name a,proces=b"),
        "-name a,proces=b: Unknown subargument proces=b to -name (did you mean 'process'?)"
    );
    for wrong in ["x", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdeg"] {
        assert_eq!(
            error(&format!("-uuid {wrong}")),
            format!("-uuid {wrong}: Fail to parse UUID string. Wrong format.")
        );
    }
}

#[test]
fn rtc() {
    assert_eq!(config("").rtc.base, RtcBase::Utc);
    let rtc = config("-rtc base=localtime,clock=vm,driftfix=slew").rtc;
    assert_eq!((rtc.base, rtc.clock, rtc.slew), (RtcBase::Localtime, RtcClock::Vm, true));
    assert_eq!(config("-rtc clock=rt -rtc base=utc").rtc.clock, RtcClock::Rt);
    assert_eq!(
        config("-rtc base=2006-06-17T16:01:21").rtc.base,
        RtcBase::Date(datetime!(2006-06-17 16:01:21))
    );
    assert_eq!(config("-rtc base=2006-06-17").rtc.base, RtcBase::Date(datetime!(2006-06-17 0:00)));
    for wrong in [
        "2006-13-01",
        "2006-02-30",
        "2006-2-3",
        "2006-06-17T24:00:00",
        "2006-06-17T16:01",
        "2006-06-17 16:01:21",
        "20060617",
        "+006-06-17",
        "2006-06-17T16:01:21T16:01:21",
    ] {
        let text = run(&["-rtc", &format!("base={wrong}")]).unwrap_err().to_string();
        assert!(
            text.ends_with(
                "\nInvalid date format. Valid formats are:\n'2006-06-17T16:01:21' or '2006-06-17'"
            ),
            "{text}"
        );
    }
    assert!(error("-rtc base=UTC").contains("invalid option value 'UTC' (did you mean 'utc'?)"));
    assert_eq!(
        error("-rtc clock=hots"),
        "-rtc clock=hots: invalid option value 'hots' for 'clock' (did you mean 'host'?) \
         (valid: host, rt, vm)"
    );
    assert!(error("-rtc driftfix=on").contains("invalid option value 'on' for 'driftfix'"));
    assert_eq!(error("-rtc utc"), "-rtc utc: Invalid parameter 'utc'");
}

#[test]
fn character_devices() {
    let config = config(
        "-chardev socket,id=a,path=/x,,y,server,nowait -serial chardev:a -serial none -serial null \
         -debugcon file:/dbg -qtest unix:/q -echr 0x14",
    );
    let pairs = &config.chardevs[0];
    assert_eq!(pairs.get("backend"), Some("socket"));
    assert_eq!(pairs.get("path"), Some("/x,y"));
    assert_eq!((pairs.switch("server"), pairs.switch("wait")), (Some(true), Some(false)));
    assert_eq!(config.serials, ["chardev:a", "null"]);
    assert_eq!(config.debugcon.as_deref(), Some("file:/dbg"));
    assert_eq!(config.qtest.as_deref(), Some("unix:/q"));
    assert_eq!(config.escape, Some(0x14));

    assert_eq!(error("-chardev null"), "-chardev null: chardev: no id specified");
    assert_eq!(error("-chardev id=a"), "-chardev id=a: chardev: \"a\" missing backend");
    assert_eq!(
        error("-chardev null,id=0"),
        "-chardev null,id=0: Parameter 'id' expects an identifier"
    );
    assert_eq!(
        error("-chardev null,id=a -chardev pty,id=a"),
        "-chardev pty,id=a: Duplicate ID 'a' for chardev"
    );
    assert_eq!(
        error("-chardev socket,id=a,prot=1"),
        "-chardev socket,id=a,prot=1: Invalid parameter 'prot' (did you mean 'port'?)"
    );
    assert_eq!(
        error("-serial null -serial null -serial null -serial null -serial pty"),
        "-serial pty: too many serial ports (at most 4)"
    );
    assert_eq!(run(&["-qmp", ""]).unwrap_err().to_string(), "-qmp : the device is empty");
    let long = format!("unix:{}", "x".repeat(5000));
    let text = run(&["-qmp", &long]).unwrap_err().to_string();
    assert!(text.ends_with("...: the device is longer than 4096 bytes"), "{text}");
    assert_eq!(error("-echr x"), "-echr x: Parameter 'echr' expects a number");
    assert_eq!(error("-echr 256"), "-echr 256: invalid escape character 256 (at most 255)");
}

#[test]
fn monitors() {
    let config = config(
        "--qmp unix:/run/vm.sock -qmp tcp::4444,server=off -monitor none -mon a,mode=control",
    );
    assert_eq!(config.qmp, ["unix:/run/vm.sock", "tcp::4444,server=off"]);
    assert!(config.monitors.is_empty() && config.monitor_given);
    assert_eq!(config.mons[0].get("mode"), Some("control"));
    assert_eq!(
        error("-mon a,mode=contrl"),
        "-mon a,mode=contrl: unknown monitor mode \"contrl\" (did you mean 'control'?)"
    );
    assert_eq!(error("-mon mode=control"), "-mon mode=control: Parameter 'chardev' is missing");
}

#[test]
fn devices_objects_and_globals() {
    let config = config(
        "-device isa-debug-exit,iobase=0xf4,iosize=4 -device isa-debugcon,chardev=a \
         -object memory-backend-ram,id=m0,size=1G -global isa-serial.index=1=2",
    );
    assert_eq!(
        config.devices[0].iter().collect::<Vec<_>>(),
        [("driver", "isa-debug-exit"), ("iobase", "0xf4"), ("iosize", "4")]
    );
    assert_eq!(config.devices.len(), 2);
    assert!(!config.serial_given);
    assert_eq!(config.objects[0].id(), Some("m0"));
    let global = &config.globals[0];
    assert_eq!(global.driver, "isa-serial");
    assert_eq!((&*global.property, &*global.value), ("index", "1=2"));

    assert_eq!(error("-device id=a"), "-device id=a: Parameter 'driver' is missing");
    assert_eq!(error("-object rng"), "-object rng: Parameter 'id' is missing");
    assert_eq!(error("-object id=a"), "-object id=a: Parameter 'qom-type' is missing");
    let same = super::tests::config("-global driver=isa-serial,property=index,value=1=2");
    assert_eq!(&same.globals[0], global);
    assert_eq!(
        error("-global driver=a,value=b"),
        "-global driver=a,value=b: Parameter 'property' is missing"
    );
    for wrong in ["a", "a.b", "a=b", ".b=c", "a.=c"] {
        assert_eq!(
            error(&format!("-global {wrong}")),
            format!("-global {wrong}: can't parse: \"{wrong}\"")
        );
    }
}

#[test]
fn what_is_only_denied() {
    let config = config("-display none -vga none -net none -nic none -nodefconfig -no-user-config");
    assert_eq!(config, Config::default());
    assert_eq!(error("-display sdl"), "-display sdl: Unknown display type: sdl (valid: none)");
    assert_eq!(error("-vga std"), "-vga std: Unknown vga type: std (valid: none)");
    assert!(config.nics.is_empty());
}

#[test]
fn process_options() {
    let config = config("-S -no-reboot -no-shutdown -daemonize -pidfile /p -D /l -d unimp,int");
    assert!(config.stopped && config.no_reboot && config.no_shutdown && config.daemonize);
    assert_eq!(config.pidfile.as_deref(), Some(Path::new("/p")));
    assert_eq!(config.log.file.as_deref(), Some(Path::new("/l")));
    assert_eq!(config.log.items.len(), 2);
    assert!(error("-d unimpl").starts_with("-d unimpl: unknown log item 'unimpl' (did you mean"));
    assert_eq!(error("-daemonize -nographic"), "-nographic can not be used with -daemonize");
    assert_eq!(
        error("-daemonize -nographic -serial null"),
        "-nographic can not be used with -daemonize"
    );
    assert!(
        crate::cli::tests::config("-daemonize -nographic -serial null -monitor none").daemonize
    );
    for stdio in [
        "-serial stdio",
        "-serial mon:stdio",
        "-monitor stdio",
        "-qmp stdio",
        "-chardev stdio,id=a",
        "-debugcon stdio",
        "-qtest stdio",
    ] {
        assert_eq!(error(&format!("-daemonize {stdio}")), "cannot use stdio with -daemonize");
    }
}

/// Parses with one configuration file, `/f`, of this text.
fn with_file(text: &str, options: &str) -> Result<Config, String> {
    let read = |path: &Path| {
        assert_eq!(path, Path::new("/f"));
        Ok(text.to_owned())
    };
    match parse_with(options.split_whitespace().map(OsString::from), &read) {
        Ok(Action::Run(config)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn a_configuration_file_is_as_good_as_options() {
    let text = "[machine]\n type = \"pc\"\n kernel = \"k\"\n[smp-opts]\n cpus = \"2\"\n\
                [chardev \"a\"]\n backend = \"null\"\n[device \"d\"]\n driver = \"isa-serial\"\n \
                chardev = \"a\"\n[global]\n driver = \"x\"\n property = \"y\"\n value = \"\"\n";
    let options = "-machine pc,kernel=k -smp 2 -chardev null,id=a \
                   -device isa-serial,id=d,chardev=a -global x.y=";
    let read = with_file(text, "-readconfig /f").unwrap();
    let mut given = config(options);
    // The id stands first in a file.
    for (list, place) in [(&mut given.chardevs, 1), (&mut given.devices, 1)] {
        let mut pairs: Vec<_> = list[0].iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let id = pairs.remove(place);
        pairs.insert(0, id);
        list[0] = Pairs::from_iter(pairs);
    }
    assert_eq!(read, given);

    assert_eq!(
        with_file("[machine]\nusb = \"x\"", "-readconfig /f").unwrap_err(),
        "/f:2: Parameter 'usb' expects 'on' or 'off'"
    );
    assert_eq!(
        with_file("\n[chardev \"a\"]", "-readconfig /f").unwrap_err(),
        "/f:2: chardev: \"a\" missing backend"
    );
    assert_eq!(
        with_file("[chardev \"a\"]\nbackend=\"null\"", "-chardev pty,id=a -readconfig /f")
            .unwrap_err(),
        "/f:1: Duplicate ID 'a' for chardev"
    );
    assert!(
        error("-readconfig /nonexistent").starts_with("read config /nonexistent: No such file")
    );
}

#[test]
fn what_was_given_is_written_as_a_configuration_file() {
    let given = config(
        "-smp 2 -M pc -smp cores=2 -chardev socket,id=a,path=x,,y,server -kernel k -append r \
         -global x.y=z -rtc base=utc -writeconfig /w -device isa-serial,chardev=a -writeconfig -",
    );
    let [(first, text), (second, more)] = &given.write_configs[..] else { panic!() };
    assert_eq!((first.as_path(), second.as_path()), (Path::new("/w"), Path::new("-")));
    assert_eq!(
        text,
        "# qemu config file\n\n[chardev \"a\"]\n  backend = \"socket\"\n  path = \"x,y\"\n  \
         server = \"on\"\n\n[rtc]\n  base = \"utc\"\n\n[global]\n  driver = \"x\"\n  \
         property = \"y\"\n  value = \"z\"\n\n[machine]\n  type = \"pc\"\n  kernel = \"k\"\n  \
         append = \"r\"\n\n[smp-opts]\n  cpus = \"2\"\n  cores = \"2\"\n\n"
    );
    // Read back, it is the same machine.
    let read = with_file(more, "-readconfig /f").unwrap();
    assert_eq!(read.smp, given.smp);
    assert_eq!(read.kernel, given.kernel);
    assert_eq!(read.globals, given.globals);
    assert_eq!(read.devices, given.devices);
    assert_eq!(
        run(&["-append", "a\"b", "-writeconfig", "/w"]).unwrap_err().to_string(),
        "-writeconfig /w: the value of 'append' cannot stand in a configuration file"
    );
}

#[test]
fn a_parameter_can_be_set_afterwards() {
    let config = config(
        "-device isa-serial,id=a,index=1 -chardev null,id=a -set device.a.index=2 \
         -set chardev.a.mux=on",
    );
    assert_eq!(config.devices[0].get("index"), Some("2"));
    assert_eq!(config.chardevs[0].switch("mux"), Some(true));
    for (text, expected) in [
        ("device.a", "can't parse: \"device.a\""),
        ("device.a=1", "can't parse: \"device.a=1\""),
        ("device..x=1", "can't parse: \"device..x=1\""),
        ("device.a.id=b", "can't parse: \"device.a.id=b\""),
        ("devic.a.x=1", "There is no option group 'devic'"),
        ("device.b.x=1", "there is no device \"b\" defined"),
        ("chardev.a.mux=x", "Parameter 'mux' expects 'on' or 'off'"),
        ("chardev.a.mx=x", "Invalid parameter 'mx' (did you mean 'mux'?)"),
    ] {
        assert_eq!(
            error(&format!("-chardev null,id=a -device isa-serial,id=a -set {text}")),
            format!("-set {text}: {expected}")
        );
    }
}

#[test]
fn an_id_is_used_once_in_a_group() {
    for (options, group) in [
        ("-device isa-serial,id=a -device isa-debugcon,id=a", "device"),
        ("-object memory-backend-ram,id=a,size=1M -object memory-backend-ram,id=a", "object"),
        ("-mon chardev=x,id=a -mon chardev=y,id=a", "mon"),
    ] {
        assert!(error(options).ends_with(&format!(": Duplicate ID 'a' for {group}")), "{options}");
    }
    assert_eq!(config("-device isa-serial,id=a -chardev null,id=a").devices.len(), 1);
}

#[test]
fn options_of_the_process() {
    let config = config("-chroot /d -runas nobody -msg timestamp -sandbox off");
    assert_eq!(config.chroot.as_deref(), Some(Path::new("/d")));
    assert_eq!(config.run_as.as_deref(), Some("nobody"));
    assert!(config.timestamps);
    assert!(!super::tests::config("-msg timestamp -msg timestamp=off").timestamps);
    assert_eq!(
        error("-sandbox on"),
        "-sandbox on: sandboxing request but seccomp is not compiled into this build"
    );
    assert_eq!(error("-sandbox maybe"), "-sandbox maybe: Parameter 'enable' expects 'on' or 'off'");
    assert_eq!(
        error("-trace events=x"),
        "-trace events=x: there are no trace events; -d and -D tell what goes on"
    );
}

#[test]
fn texts_and_lists() {
    for text in ["-help", "--help", "-h", "-?", "-S -h"] {
        assert_eq!(action(text), Action::Print(help()));
    }
    assert_eq!(action("-version"), Action::Print(version()));
    for text in ["--version -v", "-version --v"] {
        assert_eq!(action(text), Action::Print(version_verbose()));
    }
    let (first, count) =
        version_verbose().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(first + "\n", version());
    assert!(
        count.starts_with("commands of the schema implemented: ") && count.ends_with(" / 96\n")
    );
    assert_eq!(action("-d help"), Action::Print(log::list()));
    assert_eq!(action("-machine help"), Action::List(List::Machines));
    assert_eq!(action("-M ?"), Action::List(List::Machines));
    assert_eq!(action("-cpu help"), Action::List(List::Cpus));
    assert_eq!(action("-device help"), Action::List(List::Devices));
    assert_eq!(
        action("-device isa-serial,help"),
        Action::List(List::DeviceProperties("isa-serial".to_owned()))
    );
    assert_eq!(action("-object help"), Action::List(List::Objects));
    assert_eq!(action("-chardev help"), Action::List(List::Chardevs));
}

#[test]
fn the_seeds_of_the_fuzzer_run() {
    for seed in [
        &b"-kernel\0k\0-m\0size=1G,slots=2,maxmem=2G\0-smp\x004,cores=2"[..],
        b"-machine\0pc,accel=qtest,nousb\0-rtc\0base=2006-06-17T16:01:21",
        b"-chardev\0socket,id=a,path=a,,b,nowait\0-device\0x,a=b",
        b"-name\0\xff\0",
        b"-readconfig\0[device \"a\"]\ndriver = \"x\"\0-set\0device.a.x=y\0-writeconfig\0-",
        b"",
    ] {
        fuzz(seed);
    }
}

proptest! {
    #[test]
    fn no_arguments_panic(
        args in prop::collection::vec(
            prop_oneof![
                (0..table::OPTIONS.len()).prop_map(|i| format!("-{}", table::OPTIONS[i].name)),
                "[a-z,=.:0-9-]{0,30}",
                ".{0,20}",
            ],
            0..8,
        ),
    ) {
        fuzz(args.join("\0").as_bytes());
    }
}

#[test]
fn watchdogs_and_what_is_done_about_them() {
    use qmp::{PanicAction, WatchdogAction};
    let given = config("-watchdog IB700 -watchdog-action inject-nmi");
    assert_eq!(given.devices[0].get("driver"), Some("ib700"));
    assert_eq!(given.watchdog, Some(WatchdogAction::InjectNmi));
    assert_eq!(run(&["-watchdog", "help"]), run(&["-watchdog", "?"]));
    assert!(matches!(run(&["-watchdog", "?"]), Ok(Action::Print(text)) if text.contains("ib700")));
    assert_eq!(
        error("-watchdog ib700 -watchdog i6300esb"),
        "-watchdog i6300esb: only one watchdog option may be given"
    );
    assert_eq!(
        error("-watchdog dog"),
        "-watchdog dog: Unknown -watchdog device. Supported devices are:\n  \
         i6300esb    Intel 6300ESB\n  ib700       iBASE 700"
    );
    assert_eq!(
        error("-watchdog-action bark"),
        "-watchdog-action bark: Unknown -watchdog-action parameter"
    );
    let given = config("-no-reboot -action reboot=reset,panic=exit-failure -action shutdown=pause");
    assert!(!given.no_reboot && given.no_shutdown);
    assert_eq!((given.panic, given.watchdog), (Some(PanicAction::ExitFailure), None));
    let given = config("-action watchdog=none");
    assert_eq!(given.watchdog, Some(WatchdogAction::None));
    assert!(error("-action panic=maybe").contains("panic"));
}
