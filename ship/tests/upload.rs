//! What is uploaded, where to, and how it is read again: against real servers.

#[allow(dead_code)]
mod support;

use serde_json::{Value, json};
use support::proxy::{Fault, Proxy};
use support::servers::{self, moto, s3s};
use support::sigv4::Head;
use support::{Fixture, ID, sha256, stderr, succeed};

const DIR: &str = "prod/shop-0/web";

#[test]
fn a_bundle_with_its_report_and_record() {
    let fixture = Fixture::new(1);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    fixture.all();
    let dir = format!("node/{DIR}/{ID}");
    let files = ["coredump.tar.zst", "record.json", "report.html"];
    assert_eq!(server.objects(), files.map(|file| format!("{dir}/{file}")));

    // What `export` writes, to the byte.
    let bundle = std::fs::read(server.object(&format!("{DIR}/{ID}/coredump.tar.zst"))).unwrap();
    assert!(bundle == fixture.bundle());
    let record = std::fs::read(server.object(&format!("{DIR}/{ID}/record.json"))).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let url = format!("s3://cores/{dir}/coredump.tar.zst");
    assert_eq!(record["uploaded"]["url"], url);
    assert_eq!(record["uploaded"]["size"], bundle.len());
    assert_eq!(record["uploaded"]["sha256"], sha256(&bundle));
    assert!(record["stacks"][0]["frames"].as_array().unwrap().len() > 1, "{record}");
    assert_eq!(fixture.state()["uploaded"]["url"], url);
    let report = std::fs::read(server.object(&format!("{DIR}/{ID}/report.html"))).unwrap();
    let report = String::from_utf8(report).unwrap();
    assert!(report.contains("SIGABRT") && report.contains("abort") && report.len() < 64 << 10);

    // Once is enough.
    let when = || {
        let object = server.object(&format!("{DIR}/{ID}/coredump.tar.zst"));
        object.metadata().unwrap().modified().unwrap()
    };
    let before = when();
    fixture.all();
    assert_eq!(before, when());

    // And back: by the file's URL, and by the directory's.
    for url in [url.as_str(), &format!("s3://cores/{dir}"), &format!("s3://cores/{dir}/")] {
        assert!(succeed(&mut fixture.ship(&["cat", url])).stdout == bundle, "{url}");
    }
    let path = server.object(&format!("{DIR}/{ID}/coredump.tar.zst"));
    let mut other = bundle.clone();
    other[99] ^= 1;
    std::fs::write(path, other).unwrap();
    let out = fixture.ship(&["cat", &url]).output().unwrap();
    assert!(!out.status.success() && stderr(&out).contains("is not what was uploaded"));
}

#[test]
fn in_parts() {
    let fixture = Fixture::new(20);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    fixture.all();
    let bundle = std::fs::read(server.object(&format!("{DIR}/{ID}/coredump.tar.zst"))).unwrap();
    assert!(bundle.len() > 20 << 20 && bundle == fixture.bundle());
    assert_eq!(fixture.state()["uploaded"]["sha256"], sha256(&bundle));
    assert!(!fixture.path(&format!("state/{ID}.parts")).exists());
}

/// A second implementation, with another opinion of the same interface. What is said of the objects
/// goes with them.
#[test]
fn another_server() {
    let fixture = Fixture::new(20);
    let Some(server) = moto(&fixture) else { return };
    let witness = Proxy::new(server.port, |_| Fault::None);
    let more =
        "storage_class = \"STANDARD_IA\"\nencryption = \"aws:kms\"\nkms_key = \"of-cores\"\n";
    fixture.configure(&(server.settings(witness.port) + more));
    fixture.all();
    let url = format!("s3://cores/node/{DIR}/{ID}/coredump.tar.zst");
    assert!(succeed(&mut fixture.ship(&["cat", &url])).stdout == fixture.bundle());
    let heads = Head::all(&witness.heads());
    for (method, end) in
        [("POST", ".zst?uploads="), ("PUT", "/report.html"), ("PUT", "/record.json")]
    {
        let is = |head: &&Head| head.method == method && head.target.ends_with(end);
        let head = heads.iter().find(is).unwrap();
        for (name, value) in [
            ("x-amz-storage-class", "STANDARD_IA"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-aws-kms-key-id", "of-cores"),
        ] {
            assert_eq!(head.headers.get(name).map(String::as_str), Some(value), "{end}: {name}");
        }
    }
}

/// A part begins when what went before may have been sent.
#[test]
fn not_faster_than_told() {
    let fixture = Fixture::new(20);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&(server.settings(server.port) + "rate = \"8M\"\n"));
    let start = std::time::Instant::now();
    fixture.all();
    // Two parts of 8 MiB and the beginning of the third.
    assert!(start.elapsed().as_secs_f64() > 2.0, "{:?}", start.elapsed());
}

#[test]
fn a_directory() {
    let fixture = Fixture::new(20);
    let url = format!("file://{}", fixture.path("out").display());
    fixture.configure(&format!("url = {url:?}\nkey = \"{{node}}/{{date}}\"\n"));
    fixture.all();
    let dir = fixture.path(&format!("out/n1/2026-03-10/{ID}"));
    assert!(std::fs::read(dir.join("coredump.tar.zst")).unwrap() == fixture.bundle());
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["coredump.tar.zst", "record.json", "report.html"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &dir.join(&names[0]).metadata().unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let url = format!("{url}/n1/2026-03-10/{ID}/coredump.tar.zst");
    assert!(succeed(&mut fixture.ship(&["cat", &url])).stdout == fixture.bundle());

    // `info`, `export` and `debug` of the helper by the same URL.
    let helper = |args: &[&str]| succeed(std::process::Command::new(support::helper()).args(args));
    let text = String::from_utf8(helper(&["info", &url]).stdout).unwrap();
    assert!(text.contains("SIGABRT") && text.contains("abort"), "{text}");
    let out = fixture.path("again.tar.zst");
    helper(&["export", &url, "-o", out.to_str().unwrap()]);
    assert!(std::fs::read(out).unwrap() == fixture.bundle());
    let backtrace = ["-A", "-batch", "-A", "-ex", "-A", "bt"];
    let out = helper(&[&["debug", &url], &backtrace[..]].concat());
    assert!(String::from_utf8_lossy(&out.stdout).contains("main ("), "{}", stderr(&out));
}

#[test]
fn the_core_alone_and_the_record_alone() {
    let fixture = Fixture::new(1);
    let url = |name: &str| format!("url = \"file://{}\"\n", fixture.path(name).display());
    let dir = |name: &str| fixture.path(&format!("{name}/{DIR}/{ID}"));
    fixture.configure(&(url("core") + "what = \"core\"\nreport = false\n"));
    fixture.all();
    assert!(
        std::fs::read(dir("core").join("core")).unwrap() == std::fs::read(&fixture.core).unwrap()
    );
    assert!(!dir("core").join("report.html").exists());

    std::fs::remove_dir_all(fixture.path("state")).unwrap();
    fixture.configure(&(url("record") + "what = \"record\"\n"));
    fixture.all();
    let record = std::fs::read(dir("record").join("record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert!(record["stacks"].is_array());
    assert_eq!(std::fs::read_dir(dir("record")).unwrap().count(), 2);
    assert!(fixture.state()["uploaded"]["url"].as_str().unwrap().ends_with("/record.json"));
}

/// The container's word holds, whatever is configured; and nothing leaves by a mistake.
#[test]
fn what_stays_here() {
    let fixture = Fixture::new(1);
    let url = format!("url = \"file://{}\"\n", fixture.path("out").display());
    let is_there = || fixture.path(&format!("out/{DIR}")).exists();
    fixture.add(ID, json!({"upload": false}));
    fixture.configure(&url);
    fixture.all();
    assert!(!is_there());
    fixture.add(ID, json!({"outcome": "started", "time": jiff::Timestamp::now().to_string()}));
    fixture.all();
    assert!(!is_there(), "a dump that is going on");
    fixture.add(ID, json!({}));
    fixture.configure(&(url.clone() + "[upload.select]\npod = \"bank-*\"\n"));
    fixture.all();
    assert!(!is_there());
    for (mistake, says) in [
        ("what = \"records\"\n", "did you mean `record`?"),
        ("[upload.select]\npodd = \"x\"\n", "did you mean `pod`?"),
        ("[upload.selct]\npod = \"x\"\n", "did you mean `select`?"),
        ("key = \"{x}\"\n", "there is no field \"x\"; there are namespace, pod"),
        (
            "reprot = false\n",
            "line 5, `reprot = false`: there is no such key; did you mean `report`?",
        ),
    ] {
        fixture.configure(&(url.clone() + mistake));
        let check = fixture.ship(&["check"]).output().unwrap();
        for out in [fixture.once(), check] {
            let said = stderr(&out);
            assert!(!out.status.success() && !is_there(), "{mistake}: {said}");
            assert!(said.contains(says) && said.lines().count() == 1, "{mistake}: {said}");
            assert!(said.contains("nothing is uploaded until it is mended"), "{said}");
        }
    }
    fixture.configure(&(url + "[upload.select]\npod = \"shop-*\"\nnamespace = \"prod\"\n"));
    fixture.all();
    assert!(is_there());
}

/// A crash without a core, and one whose core has gone, are told of too.
#[test]
fn without_a_core() {
    let fixture = Fixture::new(1);
    fixture.configure(&format!("url = \"file://{}\"\n", fixture.path("out").display()));
    std::fs::remove_file(&fixture.core).unwrap();
    fixture.all();
    let dir = fixture.path(&format!("out/{DIR}/{ID}"));
    let record: Value =
        serde_json::from_slice(&std::fs::read(dir.join("record.json")).unwrap()).unwrap();
    assert_eq!(record["corefile"], "missing");
    assert!(!dir.join("coredump.tar.zst").exists() && dir.join("report.html").exists());
}

/// No key, wrong key, no bucket: said in one line without the key, and tried again later.
#[test]
fn credentials_are_not_told() {
    let fixture = Fixture::new(1);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    let out = fixture
        .ship(&["-v", "run", "--once"])
        .env("AWS_SECRET_ACCESS_KEY", "hunter2hunter2hunter2hunter2hunter2hunter")
        .output()
        .unwrap();
    let said = stderr(&out);
    assert!(!out.status.success() && said.contains("not uploaded"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains(servers::SECRET), "{said}");
    assert!(server.objects().is_empty());

    // The keys of a shared file.
    let file = fixture.path("credentials");
    let keys = format!(
        "[default]\naws_access_key_id = x\naws_secret_access_key = y\n[cores]\n\
         aws_access_key_id = {}\naws_secret_access_key = {}\n",
        servers::KEY,
        servers::SECRET
    );
    std::fs::write(&file, keys).unwrap();
    let more = format!("credentials_file = {file:?}\nprofile = \"cores\"\n");
    fixture.configure(&(server.settings(server.port) + &more));
    succeed(fixture.ship(&["run", "--once"]).env_remove("AWS_ACCESS_KEY_ID"));
    assert_eq!(server.objects().len(), 3);
}

/// `doctor` of the helper says what is to be mended, by the configuration of the host.
#[test]
fn doctor_says_it() {
    if !support::inside::is_inside("doctor_says_it", &[]) {
        return;
    }
    // The directory need not be there. Without the host's authorities nothing could be uploaded.
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    let text = std::fs::read(authorities).unwrap();
    succeed(std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/etc"]));
    std::fs::create_dir_all("/etc/ssl/certs").unwrap();
    std::fs::write(authorities, text).unwrap();
    std::fs::create_dir("/etc/oci-coredump").unwrap();
    let doctor = |text: &str| {
        std::fs::write("/etc/oci-coredump/config.toml", text).unwrap();
        let out = std::process::Command::new(support::helper()).args(["doctor", "--json"]).output();
        let all: Value = serde_json::from_slice(&out.unwrap().stdout).unwrap();
        let mine = all.as_array().unwrap().iter().find(|check| check["check"] == "uploads");
        (mine.unwrap()["verdict"].clone(), mine.unwrap()["text"].as_str().unwrap().to_owned())
    };
    let (verdict, text) = doctor("[upload]\nulr = \"s3://b\"\n");
    assert_eq!(verdict, "failure", "{text}");
    assert!(text.contains("line 2, `ulr = \"s3://b\"`: there is no such key"), "{text}");
    assert!(text.contains("did you mean `url`?") && !text.contains('\n'), "{text}");
    let (verdict, text) = doctor("[upload]\nurl = \"s3://b\"\n");
    assert_eq!((verdict, text.as_str()), ("ok".into(), "crashes are uploaded to s3://b"));
}
