use std::sync::Arc;

use serde_json::json;

use crate::testing::Rig;

/// 32 bytes from 0 on.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// 16 bytes from 0 on.
const IV: &str = "AAECAwQFBgcICQoLDA0ODw==";

fn add(rig: &mut Rig, arguments: serde_json::Value) -> Result<(), String> {
    rig.run("object-add", &arguments.to_string()).map(|reply| assert_eq!(reply, json!({})))
}

#[test]
fn objects_come_and_go() {
    let mut rig = Rig::new();
    let memory = json!({"qom-type": "memory-backend-ram", "id": "m0", "size": 8192});
    add(&mut rig, memory.clone()).unwrap();
    assert_eq!(
        add(&mut rig, memory.clone()).unwrap_err(),
        "attempt to add duplicate property 'm0' to object (type 'container')"
    );
    // As the first versions of the command had it.
    let props = json!({"mem-path": "/tmp", "share": true, "size": 4096});
    let old = json!({"qom-type": "memory-backend-file", "id": "m1", "props": props});
    add(&mut rig, old).unwrap();
    add(&mut rig, json!({"qom-type": "memory-backend-memfd", "id": "m2", "size": 4097})).unwrap();
    let dev = |id: &str, size: u64, share: bool| {
        json!({"share": share, "prealloc": false, "host-nodes": [], "size": size, "merge": false,
               "dump": false, "policy": "default", "id": id})
    };
    assert_eq!(
        rig.run("query-memdev", "{}"),
        Ok(json!([dev("m0", 8192, false), dev("m1", 4096, true), dev("m2", 4097, true)]))
    );
    assert_eq!(rig.get("/objects/m1", "mem-path"), json!("/tmp"));
    assert_eq!(rig.get("/objects/m0", "share"), json!(false));
    assert_eq!(rig.get("/objects/m0", "type"), json!("memory-backend-ram"));

    let used = rig.vm.objects.memory("m0").unwrap();
    assert!(rig.vm.objects.rng("m0").is_none() && rig.vm.objects.iothread("m0").is_none());
    assert_eq!(
        rig.error("object-del", r#"{"id": "m0"}"#),
        "object 'm0' is in use, can not be deleted"
    );
    drop(used);
    assert_eq!(rig.run("object-del", r#"{"id": "m0"}"#), Ok(json!({})));
    assert_eq!(rig.error("object-del", r#"{"id": "m0"}"#), "object 'm0' not found");
    add(&mut rig, memory).unwrap();
    let list = rig.run("qom-list", r#"{"path": "/objects"}"#).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|o| o["name"].clone()).collect();
    assert_eq!(names, ["m0", "m2", "m1", "type"]);
}

#[test]
fn each_mistake_in_object_add_is_told() {
    let mut rig = Rig::new();
    for (arguments, text) in [
        (json!({"id": "x"}), "Parameter 'qom-type' is missing"),
        (json!({"qom-type": "rng-random"}), "Parameter 'id' is missing"),
        (
            json!({"qom-type": 1, "id": "x"}),
            "Invalid parameter type for 'qom-type', expected: string",
        ),
        (
            json!({"qom-type": "nosuch", "id": "x"}),
            "Parameter 'qom-type' does not accept value 'nosuch'",
        ),
        (
            json!({"qom-type": "memory-backend", "id": "x"}),
            "object type 'memory-backend' is abstract",
        ),
        (
            json!({"qom-type": "isa-serial", "id": "x"}),
            "object type 'isa-serial' isn't supported by object-add",
        ),
        (json!({"qom-type": "rng-builtin", "id": "1"}), "Parameter 'id' expects an identifier"),
        (
            json!({"qom-type": "rng-builtin", "id": "x", "props": 1}),
            "Invalid parameter type for 'props', expected: object",
        ),
        (json!({"qom-type": "rng-builtin", "id": "x", "y": 1}), "Parameter 'y' is unexpected"),
        (
            json!({"qom-type": "rng-random", "id": "x", "filename": 3}),
            "Invalid parameter type for 'filename', expected: string",
        ),
        (
            json!({"qom-type": "rng-random", "id": "x", "filename": "/nonexistent"}),
            "Could not open '/nonexistent': No such file or directory",
        ),
        (json!({"qom-type": "rng-egd", "id": "x"}), "Parameter 'chardev' is missing"),
        (
            json!({"qom-type": "rng-egd", "id": "x", "chardev": "y"}),
            "DeviceNotFound: Device 'y' not found",
        ),
        (json!({"qom-type": "memory-backend-ram", "id": "x"}), "Parameter 'size' is missing"),
        (
            json!({"qom-type": "memory-backend-file", "id": "x", "size": 4096}),
            "Parameter 'mem-path' is missing",
        ),
        (
            json!({"qom-type": "memory-backend-ram", "id": "x", "size": "1M"}),
            "Invalid parameter type for 'size', expected: integer",
        ),
        (
            json!({"qom-type": "memory-backend-ram", "id": "x", "size": -1}),
            "Parameter 'size' expects uint64",
        ),
        (
            json!({"qom-type": "memory-backend-ram", "id": "x", "size": 0}),
            "property 'size' of memory-backend-ram doesn't take value '0'",
        ),
        (
            json!({"qom-type": "memory-backend-ram", "id": "x", "size": u64::MAX}),
            "18446744073709551615 bytes of memory are too many (at most 4T)",
        ),
        (
            json!({"qom-type": "memory-backend-ram", "id": "x", "size": 4096, "share": 1}),
            "Invalid parameter type for 'share', expected: boolean",
        ),
        (
            json!({"qom-type": "memory-backend-ram", "id": "x", "size": 4096, "policy": "bind"}),
            "Parameter 'policy' does not accept value 'bind'",
        ),
        (json!({"qom-type": "secret", "id": "x"}), "Either 'file' or 'data' must be provided"),
        (
            json!({"qom-type": "secret", "id": "x", "data": "a", "format": "hex"}),
            "Parameter 'format' does not accept value 'hex'",
        ),
    ] {
        assert_eq!(add(&mut rig, arguments.clone()).unwrap_err(), text, "{arguments}");
    }
    assert_eq!(rig.vm.objects.iter().count(), 0);
    for (arguments, text) in [
        (r#"{}"#, "Parameter 'id' is missing"),
        (r#"{"id": 1}"#, "Invalid parameter type for 'id', expected: string"),
        (r#"{"id": "x", "y": 1}"#, "Invalid parameter 'y'"),
    ] {
        assert_eq!(rig.error("object-del", arguments), text);
    }
    assert_eq!(rig.error("query-memdev", r#"{"x": 1}"#), "Invalid parameter 'x'");
    assert_eq!(rig.error("query-iothreads", r#"{"x": 1}"#), "Invalid parameter 'x'");
}

#[test]
fn an_iothread_runs_until_it_is_removed() {
    let mut rig = Rig::new();
    add(&mut rig, json!({"qom-type": "iothread", "id": "t"})).unwrap();
    let thread = rig.vm.objects.iothread("t").unwrap();
    let id = thread.handle.call(|_| rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
    assert_eq!(
        rig.run("query-iothreads", "{}"),
        Ok(json!([{"poll-shrink": 0, "thread-id": id, "aio-max-batch": 0, "poll-grow": 0,
                   "poll-max-ns": 0, "id": "t"}]))
    );
    assert_eq!(rig.get("/objects/t", "thread-id"), json!(id));
    assert!(rig.error("object-del", r#"{"id": "t"}"#).contains("in use"));
    drop(thread);
    rig.run("object-del", r#"{"id": "t"}"#).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/self/task/{id}")).exists());
}

#[test]
fn an_rng_holds_its_chardev() {
    let mut rig = Rig::new();
    let egd = |id: &str| json!({"qom-type": "rng-egd", "id": id, "chardev": "c0"});
    add(&mut rig, egd("r")).unwrap();
    assert_eq!(add(&mut rig, egd("s")).unwrap_err(), "Device 'c0' is in use");
    assert_eq!(rig.get("/objects/r", "opened"), json!(true));
    assert_eq!(rig.get("/objects/r", "chardev"), json!("c0"));
    rig.run("object-del", r#"{"id": "r"}"#).unwrap();
    add(&mut rig, egd("s")).unwrap();
    assert_eq!(Arc::strong_count(&rig.vm.objects.rng("s").unwrap()), 2);
}

#[test]
fn secrets_in_the_clear() {
    let mut rig = Rig::new();
    let dir = std::env::temp_dir().join(format!("secret-test-{}", std::process::id()));
    std::fs::write(&dir, b"fr\xffom a file\n").unwrap();
    let file = dir.to_str().unwrap();
    add(&mut rig, json!({"qom-type": "secret", "id": "a", "data": "abc"})).unwrap();
    add(&mut rig, json!({"qom-type": "secret", "id": "b", "file": file})).unwrap();
    let encoded = json!({"qom-type": "secret", "id": "c", "data": "YWJj\n", "format": "base64"});
    add(&mut rig, encoded).unwrap();
    std::fs::remove_file(file).unwrap();
    let bytes = |rig: &Rig, id| rig.vm.objects.secret(id).unwrap().bytes().to_vec();
    assert_eq!(bytes(&rig, "a"), b"abc");
    assert_eq!(bytes(&rig, "b"), b"fr\xffom a file\n");
    assert_eq!(bytes(&rig, "c"), b"abc");
    assert_eq!(rig.get("/objects/b", "file"), json!(file));
    assert_eq!(rig.get("/objects/a", "loaded"), json!(true));
    assert_eq!(
        rig.error("qom-get", r#"{"path": "/objects/a", "property": "data"}"#),
        "Insufficient permission to perform this operation"
    );
    for (more, text) in [
        (json!({"data": "a", "file": file}), "'file' and 'data' are mutually exclusive"),
        (json!({"data": "a!", "format": "base64"}), "Base64 data contains invalid characters"),
    ] {
        let mut given = json!({"qom-type": "secret", "id": "x"});
        given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(add(&mut rig, given).unwrap_err(), text);
    }
    let endless = json!({"qom-type": "secret", "id": "x", "file": "/dev/zero"});
    assert_eq!(
        add(&mut rig, endless).unwrap_err(),
        "Unable to read /dev/zero: longer than 1048576 bytes"
    );
}

#[test]
fn encrypted_secrets() {
    let mut rig = Rig::new();
    let key = json!({"qom-type": "secret", "id": "key", "data": KEY, "format": "base64"});
    add(&mut rig, key).unwrap();
    add(&mut rig, json!({"qom-type": "secret", "id": "short", "data": "abc"})).unwrap();
    // printf %s "correct horse" | openssl enc -aes-256-cbc -K 000102... -iv 000102... -a
    let text = "4PUkRMwszTJHqTxWj+TrNQ==";
    // The same key and vector, sixteen zeroes, unpadded: -nopad
    let unpadded = "Wm4EVwj7cZbwLlU9AsOmkg==";
    let given = |data: &str, keyid: &str, iv: Option<&str>, format: &str| {
        let mut given = json!({"qom-type": "secret", "id": "s", "data": data, "keyid": keyid, "format": format});
        if let Some(iv) = iv {
            given["iv"] = json!(iv);
        }
        given
    };
    for (given, text) in [
        (given(text, "nosuch", Some(IV), "base64"), "No secret with id 'nosuch'"),
        (given(text, "short", Some(IV), "base64"), "Key should be 32 bytes in length"),
        (given(text, "key", None, "base64"), "IV is required to decrypt secret"),
        (given(text, "key", Some("AAAA"), "base64"), "IV should be 16 bytes in length not 3"),
        (given(text, "key", Some("!"), "base64"), "Base64 data contains invalid characters"),
        (given("abc", "key", Some(IV), "raw"), "Length 3 must be a multiple of block size 16"),
        (
            given(unpadded, "key", Some(IV), "base64"),
            "Incorrect number of padding bytes (0) found on decrypted data",
        ),
        (
            given("", "key", Some(IV), "base64"),
            "Incorrect number of padding bytes (0) found on decrypted data",
        ),
    ] {
        assert_eq!(add(&mut rig, given).unwrap_err(), text);
    }
    add(&mut rig, given(text, "key", Some(IV), "base64")).unwrap();
    assert_eq!(rig.vm.objects.secret("s").unwrap().bytes(), b"correct horse");
}
