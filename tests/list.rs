//! `list` as people and scripts run it, over hand-written stores.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Store(tempfile::TempDir);

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("records")).unwrap();
        Store(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// One record, with these members changed.
    fn add(&self, name: &str, changes: serde_json::Value) {
        let mut record = serde_json::json!({
            "time": "2026-03-10T10:30:00Z", "container_id": "4f3c9a1b2d5e6f708192", "pid": 12,
            "host_pid": 4711, "tid": 12, "host_tid": 4711,
            "signal": 11, "signal_name": "SIGSEGV", "comm": "nginx", "exe": "/usr/sbin/nginx",
            "uid": 0, "gid": 0, "dump_mode": 1, "pattern": "core",
            "core_path": null, "host_path": null, "location": "volume", "size": null,
            "disk_size": null, "truncated": false, "outcome": "none",
            "reason": null
        });
        for (key, value) in changes.as_object().unwrap() {
            record[key] = value.clone();
        }
        let records = self.path().join("records");
        // As the dispatcher writes it: beside, then renamed.
        std::fs::write(records.join("new"), serde_json::to_vec(&record).unwrap()).unwrap();
        std::fs::rename(records.join("new"), records.join(name)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        command.arg("list").arg("--store").arg(self.path()).args(args).env("TZ", "UTC");
        command
    }

    fn list(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", stderr(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    fn states(&self) -> Vec<String> {
        self.rows().iter().map(|r| r["corefile"].as_str().unwrap().to_owned()).collect()
    }

    /// One object on each line.
    fn rows(&self) -> Vec<serde_json::Value> {
        let text = self.list(&["--json"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_table() {
    let store = Store::new();
    store.add("1.jsonl", serde_json::json!({}));
    store.add(
        "2.jsonl",
        serde_json::json!({
            "time": "2026-03-10T11:00:00Z", "pid": 7,
            "container_name": "web", "pod_name": "shop-0", "pod_namespace": "prod",
        }),
    );
    let expected = "\
TIME                         PID  UID  GID  SIG      COREFILE  CONTAINER        EXE              SIZE  UPLOADED
Tue 2026-03-10 10:30:00 UTC   12    0    0  SIGSEGV  none      4f3c9a1b2d5e     /usr/sbin/nginx     -  -
Tue 2026-03-10 11:00:00 UTC    7    0    0  SIGSEGV  none      prod/shop-0/web  /usr/sbin/nginx     -  -
";
    assert_eq!(store.list(&[]), expected);
    let pids = |args: &[&str]| -> Vec<String> {
        store
            .list(args)
            .lines()
            .skip(1)
            .map(|l| l.split_whitespace().nth(4).unwrap().to_owned())
            .collect()
    };
    assert_eq!(pids(&["--reverse"]), ["7", "12"]);
    assert_eq!(pids(&["-n", "1"]), ["7"]);
    assert_eq!(pids(&["--until", "2026-03-10 10:45"]), ["12"]);
    assert_eq!(pids(&["pod=shop-*"]), ["7"]);
}

#[test]
fn states_of_the_core() {
    use std::os::unix::fs::symlink;
    let store = Store::new();
    let volume = tempfile::tempdir().unwrap();
    let v = volume.path().to_str().unwrap();
    std::fs::write(volume.path().join("whole"), [0; 100]).unwrap();
    std::fs::write(volume.path().join("short"), [0; 50]).unwrap();
    std::fs::write(store.path().join("elsewhere"), [0; 100]).unwrap();
    symlink(store.path().join("elsewhere"), volume.path().join("link")).unwrap();
    symlink("..", volume.path().join("up")).unwrap();
    symlink("whole", volume.path().join("near")).unwrap();
    let fifo = Command::new("mkfifo").arg(volume.path().join("fifo")).status().unwrap();
    assert!(fifo.success());
    let up = format!("{v}/up/{}/elsewhere", store.path().file_name().unwrap().to_str().unwrap());
    let cases = [
        (format!("{v}/whole"), "written", "present"),
        (format!("{v}/short"), "written", "truncated"),
        (format!("{v}/whole"), "truncated", "truncated"),
        (format!("{v}/whole"), "started", "truncated"),
        (format!("{v}/gone"), "written", "missing"),
        // Files that a container may put on its volume: ways out of it, and a file
        // whose open never returns.
        (format!("{v}/link"), "written", "missing"),
        (up, "written", "missing"),
        (format!("{v}/fifo"), "written", "missing"),
        (format!("{v}/near"), "written", "present"),
        (format!("{v}/whole"), "none", "none"),
    ];
    for (i, (path, outcome, _)) in cases.iter().enumerate() {
        store.add(
            &format!("{i:03}.jsonl"),
            serde_json::json!({"host_path": path, "host_dir": v, "outcome": outcome, "size": 100}),
        );
    }
    assert_eq!(store.states(), cases.each_ref().map(|(_, _, state)| *state));
}

/// What is escaped for people is kept byte for byte beside it.
#[test]
fn a_core_whose_name_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let store = Store::new();
    let volume = tempfile::tempdir().unwrap();
    let core = volume.path().join(std::ffi::OsStr::from_bytes(b"core\xff\n.1"));
    std::fs::write(&core, [0; 100]).unwrap();
    let bytes = core.as_os_str().as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let record = serde_json::json!({
        "host_path": bytes.escape_ascii().to_string(), "host_dir": volume.path(),
        "outcome": "written", "size": 100,
    });
    store.add("1.jsonl", record.clone());
    assert_eq!(store.states(), ["missing"]);
    store.add(
        "1.jsonl",
        serde_json::json!({
            "host_path_hex": hex, "host_path": record["host_path"], "host_dir": volume.path(),
            "outcome": "written", "size": 100,
        }),
    );
    assert_eq!(store.states(), ["present"]);
    assert!(store.list(&[&format!("core={}*", volume.path().display())]).contains("present"));
}

#[test]
fn a_hostile_name_moves_no_cursor() {
    let store = Store::new();
    store.add(
        "1.jsonl",
        serde_json::json!({"exe": "/a\u{1b}[2J\nb", "container_name": "\r\u{9b}x"}),
    );
    let text = store.list(&[]);
    assert_eq!(text.lines().count(), 2);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.contains(r"/a\u{1b}[2J\nb"), "{text}");
}

#[test]
fn damaged_and_absent() {
    let store = Store::new();
    store.add("1.jsonl", serde_json::json!({}));
    std::fs::write(store.path().join("records/2.jsonl"), b"{\"time\": 3").unwrap();
    let out = store.command(&[]).output().unwrap();
    assert!(out.status.success());
    assert!(stderr(&out).contains("\"2.jsonl\" is not readable, ignoring"), "{}", stderr(&out));
    // The default store is the machine's own: it may have crashes, and who runs this
    // may have no access to it.
    let empty = Store::new();
    for mut command in [empty.command(&["container=none"]), empty.command(&[])] {
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert!(stderr(&out).starts_with("oci-coredump: list: no crash in "), "{}", stderr(&out));
    }
}

/// A thousand records take no more processes than one does: none is started for each.
#[test]
fn a_thousand_take_as_many_processes_as_one() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: there is no strace");
        return;
    }
    let processes = |records: usize| {
        let store = Store::new();
        for i in 0..records {
            store.add(
                &format!("{i:04}.jsonl"),
                serde_json::json!({"pid": i, "host_path": "/nonexistent/core"}),
            );
        }
        let calls = store.path().join("calls");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fork,vfork,clone,clone3", "-o"])
            .arg(&calls)
            .arg(env!("CARGO_BIN_EXE_oci-coredump"))
            .args(["list", "--store"])
            .arg(store.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), records + 1);
        std::fs::read_to_string(calls).unwrap().lines().filter(|l| l.contains("clone")).count()
    };
    let one = processes(1);
    assert!(one > 0, "strace sees no process");
    assert_eq!(processes(1000), one);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let store = Store::new();
    for i in 0..2000 {
        store.add(&format!("{i:04}.jsonl"), serde_json::json!({"exe": "/x".repeat(100)}));
    }
    let mut child =
        store.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}");
}

#[test]
fn follow_prints_what_comes_once_it_is_finished() {
    let store = Store::new();
    store.add("1.jsonl", serde_json::json!({}));
    let mut child = store.command(&["--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut pid = || {
        serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap()["pid"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(pid(), 12);
    store.add("2.jsonl", serde_json::json!({"outcome": "started", "pid": 1}));
    store.add("3.jsonl", serde_json::json!({"pid": 2}));
    assert_eq!(pid(), 2);
    store.add("2.jsonl", serde_json::json!({"outcome": "none", "pid": 1}));
    assert_eq!(pid(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn colours_are_for_terminals() {
    let store = Store::new();
    store.add("1.jsonl", serde_json::json!({}));
    assert!(!store.list(&[]).contains('\u{1b}'));
    let out =
        store.command(&[]).env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR").output().unwrap();
    assert!(out.stdout.contains(&0x1b));
    let out = store.command(&[]).env("NO_COLOR", "1").output().unwrap();
    assert!(!out.stdout.contains(&0x1b));
}

/// Another file under an old record's name is not that record's core.
#[test]
fn a_record_knows_its_file() {
    use oci_coredump::identity;
    let store = Store::new();
    let volume = tempfile::tempdir().unwrap();
    let (v, core) = (volume.path().to_str().unwrap(), volume.path().join("core"));
    let add = |name: &str, time: &str, pid: i32| {
        let id = identity(std::fs::File::open(&core).unwrap()).unwrap();
        let record = serde_json::json!({"time": time, "pid": pid, "host_path": core, "host_dir": v,
            "outcome": "written", "size": 3, "identity": id});
        store.add(name, record);
    };
    std::fs::write(&core, "one").unwrap();
    add("1.jsonl", "2026-03-10T10:30:00Z", 1);
    assert_eq!(store.states(), ["present"]);
    // Its owner may write to it.
    std::fs::write(&core, "uno").unwrap();
    assert_eq!(store.states(), ["present"]);
    // The next crash; the first is kept somewhere, so that its inode is not given out again.
    std::fs::rename(&core, volume.path().join("kept")).unwrap();
    std::fs::write(&core, "two").unwrap();
    add("2.jsonl", "2026-03-10T11:00:00Z", 2);
    assert_eq!(store.states(), ["overwritten", "present"]);
    let say = |verb: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        let out = command.arg(verb).arg("pid=1").arg("--store").arg(store.path()).args(args);
        let out = out.env("TZ", "UTC").output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&out.stdout), stderr(&out))
    };
    assert_eq!(
        store.rows()[0]["overwritten_by"],
        serde_json::json!({
            "time": "2026-03-10T11:00:00Z", "pid": 2,
            "record": "20260310T110000Z-4711-4f3c9a1b2d5e"
        })
    );
    let shown = "overwritten by the crash of Tue 2026-03-10 11:00:00 UTC";
    assert!(store.list(&[]).contains(shown), "{}", store.list(&[]));
    let by = "overwritten by the crash of 2026-03-10T11:00:00Z";
    let to = volume.path().join("out");
    for (verb, args) in
        [("info", &["--json"][..]), ("debug", &[]), ("export", &["-o", to.to_str().unwrap()])]
    {
        let said = say(verb, args);
        assert!(said.contains(by), "{verb}: {said}");
    }
    assert!(!to.exists());
    assert!(say("info", &[]).contains(shown));
    // One whose helper was killed before it had said which file it made.
    store.add(
        "0.jsonl",
        serde_json::json!({"time": "2026-03-10T10:00:00Z", "pid": 1, "host_path": core,
        "host_dir": v, "host_pid": 1, "outcome": "started"}),
    );
    assert_eq!(store.states(), ["overwritten", "overwritten", "present"]);
    assert_eq!(store.rows()[0]["overwritten_by"]["pid"], 2);
    std::fs::remove_file(store.path().join("records/0.jsonl")).unwrap();
    // A core of no record.
    std::fs::rename(&core, volume.path().join("kept2")).unwrap();
    std::fs::write(&core, "three").unwrap();
    assert_eq!(store.states(), ["overwritten", "overwritten"]);
    assert!(say("info", &[]).contains("overwritten by another file"));
}

/// Names of before such names were escaped in records.
#[test]
fn names_that_deceive_are_escaped() {
    let store = Store::new();
    let name = "a\u{202e}cba\u{2028}\u{200b}\u{feff}\u{e0041}x";
    store.add(
        "1.jsonl",
        serde_json::json!({"comm": name, "exe": name, "reason": name, "pod_name": name,
        "core_path": name, "pattern": name, "image": name}),
    );
    let info = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oci-coredump"));
        let out = command.arg("info").arg("--store").arg(store.path()).args(args).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    for text in [store.list(&[]), store.list(&["--json"]), info(&[]), info(&["--json"])] {
        assert!(text.is_ascii() && text.contains("202e"), "{text}");
    }
    assert_eq!(store.rows()[0]["comm"], name);
}

/// What machines read is as docs/crash.schema.json says.
#[test]
fn json_is_as_the_schema_says() {
    let store = Store::new();
    let volume = tempfile::tempdir().unwrap();
    let core = volume.path().join("core");
    std::fs::write(&core, "one").unwrap();
    let id = oci_coredump::identity(std::fs::File::open(&core).unwrap()).unwrap();
    let written = serde_json::json!({"host_path": core, "host_dir": volume.path(), "size": 3,
        "outcome": "written", "identity": id, "host_pid": 1, "container_name": "web"});
    store.add("1.jsonl", written.clone());
    let mut old = written;
    old["identity"]["born"] = serde_json::Value::Null;
    old["identity"]["modified"] = serde_json::json!([1, 2]);
    store.add("0.jsonl", old);
    store.add(
        "2.jsonl",
        serde_json::json!({"cause": "keep", "reason": "x", "count": 3, "last": "y",
        "user": 1000, "upload": false, "limit": "cores = 3", "binaries": {"/bin/x": "x"}}),
    );
    let info = Command::new(env!("CARGO_BIN_EXE_oci-coredump"))
        .args(["info", "-n", "9", "--json", "--store"])
        .arg(store.path())
        .output()
        .unwrap();
    let told = store.list(&["--json"]) + std::str::from_utf8(&info.stdout).unwrap();
    assert_eq!(told.lines().count(), 6);
    support_schema(&told);
}

/// Each line by docs/crash.schema.json, with Python's jsonschema.
fn support_schema(lines: &str) {
    let check = r#"
import json, sys
try:
    import jsonschema
except ImportError:
    sys.exit(77)
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
for line in sys.stdin:
    jsonschema.validate(json.loads(line), schema)
"#;
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/crash.schema.json");
    let python = Command::new("python3")
        .args(["-W", "ignore", "-c", check])
        .arg(schema)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = python else { return skipped() };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    match out.status.code() {
        Some(77) => skipped(),
        code => assert_eq!(code, Some(0), "{}", stderr(&out)),
    }
}

fn skipped() {
    assert!(std::env::var_os("CI").is_none(), "python3 with jsonschema is missing");
    eprintln!("SKIPPED: python3 with jsonschema is missing");
}
