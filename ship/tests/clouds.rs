//! Azure, against its maker's emulator, and Alibaba's and Huawei's S3 interfaces, against a server
//! that checks signatures.

#[allow(dead_code)]
mod support;

use std::process::Command;
use support::servers::{self, azurite, s3s_by_name};
use support::{Fixture, ID, stderr, succeed};

const DIR: &str = "prod/shop-0/web";

/// Microsoft's own emulator, with the signatures of its keys.
#[test]
fn azure() {
    let fixture = Fixture::new(20);
    let Some(server) = azurite(&fixture) else { return };
    let settings = format!(
        "url = \"az://cores/node\"\naccount = {:?}\nallow_http = true\n\
         endpoint = \"http://127.0.0.1:{}/{}\"\n",
        servers::ACCOUNT,
        server.port,
        servers::ACCOUNT,
    );
    let run = |key: &str, args: &[&str]| -> Command {
        let mut command = fixture.ship(args);
        command.env("AZURE_STORAGE_ACCOUNT_KEY", key);
        command
    };
    fixture.configure(&settings);
    let other =
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
    let out = run(other, &["run", "--once"]).output().unwrap();
    assert!(
        !out.status.success() && stderr(&out).contains("necessary privileges"),
        "{}",
        stderr(&out)
    );

    succeed(&mut run(servers::ACCOUNT_KEY, &["run", "--once"]));
    for name in ["coredump.tar.zst", "report.html", "record.json"] {
        let url = format!("az://cores/node/{DIR}/{ID}/{name}");
        let there = succeed(&mut run(servers::ACCOUNT_KEY, &["cat", &url])).stdout;
        assert!(!there.is_empty() && (name != "coredump.tar.zst" || there == fixture.bundle()));
    }
    // With a storage class it goes another way.
    std::fs::remove_dir_all(fixture.path("state")).unwrap();
    fixture.configure(&(settings.replace("/node", "/cool") + "storage_class = \"Cool\"\n"));
    succeed(&mut run(servers::ACCOUNT_KEY, &["run", "--once"]));
    let url = format!("az://cores/cool/{DIR}/{ID}");
    assert!(succeed(&mut run(servers::ACCOUNT_KEY, &["cat", &url])).stdout == fixture.bundle());
}

/// A process that is killed goes on with the blocks that are there; a storage that has forgotten
/// them gets them again.
#[test]
fn azure_goes_on() {
    let fixture = Fixture::new(40);
    let Some(server) = azurite(&fixture) else { return };
    let proxy = support::proxy::Proxy::new(server.port, |_| support::proxy::Fault::Slow(20));
    let settings = |prefix: &str, port: u16| {
        fixture.configure(&format!(
            "url = \"az://cores/{prefix}\"\naccount = {:?}\nallow_http = true\n\
             endpoint = \"http://127.0.0.1:{port}/{}\"\n",
            servers::ACCOUNT,
            servers::ACCOUNT,
        ));
    };
    settings("node", proxy.port);
    let run = |args: &[&str]| -> Command {
        let mut command = fixture.ship(args);
        command.env("AZURE_STORAGE_ACCOUNT_KEY", servers::ACCOUNT_KEY);
        command
    };
    fixture.kill_after_a_part(run(&["run", "--once"]));
    let before = proxy.sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!(before > 8 << 20, "{before}");
    let counting = support::proxy::Proxy::new(server.port, |_| support::proxy::Fault::None);
    settings("node", counting.port);
    succeed(&mut run(&["run", "--once"]));
    let url = format!("az://cores/node/{DIR}/{ID}");
    let bundle = fixture.bundle();
    assert!(succeed(&mut run(&["cat", &url])).stdout == bundle);
    let sent = counting.sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!(sent < bundle.len() as u64 - (4 << 20), "{sent} bytes of {}", bundle.len());

    // Blocks that the storage does not know.
    std::fs::remove_file(fixture.path(&format!("state/{ID}.json"))).unwrap();
    settings("other", counting.port);
    let url = url.replace("/node/", "/other/");
    let part = |n: usize| {
        let part = &bundle[n..(n + (8 << 20)).min(bundle.len())];
        let id = format!("{:032}", n);
        serde_json::json!({"id": id, "size": part.len(), "sha256": support::sha256(part)})
    };
    let parts: Vec<_> = (0..bundle.len()).step_by(8 << 20).map(part).collect();
    let text = serde_json::json!({"id": "", "parts": parts}).to_string();
    std::fs::write(fixture.path(&format!("state/{ID}.parts")), text).unwrap();
    let out = run(&["run", "--once"]).output().unwrap();
    assert!(!out.status.success() && stderr(&out).contains("InvalidBlockList"), "{}", stderr(&out));
    succeed(&mut run(&["run", "--once"]));
    assert!(succeed(&mut run(&["cat", &url])).stdout == bundle);
}

/// Alibaba OSS and Huawei OBS: the bucket is in the name of the server, the keys are of their own
/// variables, and each request is signed by version 4 with the hash of its content, for the region.
/// s3s-fs checks all of that, and that the content is not `aws-chunked`.
#[test]
fn by_their_s3_interface() {
    let fixture = Fixture::new(20);
    let Some((_server, witness)) = s3s_by_name(&fixture) else { return };
    for (scheme, id, secret) in [
        ("oss", "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
        ("obs", "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"),
    ] {
        let _ = std::fs::remove_dir_all(fixture.path("state"));
        fixture.configure(&format!(
            "url = \"{scheme}://cores/{scheme}\"\nregion = \"{scheme}-cn-hangzhou\"\n\
             endpoint = \"http://cores.localhost:{}\"\nallow_http = true\n",
            witness.port
        ));
        let run = |secret_key: &str, args: &[&str]| -> Command {
            let mut command = fixture.ship(args);
            // AWS's variables are not these clouds'.
            command.env("AWS_ACCESS_KEY_ID", "no").env("AWS_SECRET_ACCESS_KEY", "no");
            command.env(id, servers::KEY).env(secret, secret_key);
            command
        };
        let out = run("another", &["run", "--once"]).output().unwrap();
        assert!(stderr(&out).contains("SignatureDoesNotMatch"), "{}", stderr(&out));
        succeed(&mut run(servers::SECRET, &["run", "--once"]));
        let url = format!("{scheme}://cores/{scheme}/{DIR}/{ID}");
        assert!(succeed(&mut run(servers::SECRET, &["cat", &url])).stdout == fixture.bundle());
        let heads = witness.heads();
        assert!(heads.contains(&format!("PUT /{scheme}/{DIR}/{ID}/record.json HTTP/1.1")));
        assert!(heads.contains(&format!("host: cores.localhost:{}", witness.port)), "{heads}");
        assert!(heads.contains("/s3/aws4_request"), "{heads}");
        assert!(!heads.contains("aws-chunked") && !heads.contains("STREAMING"), "{heads}");
        assert!(!heads.contains("UNSIGNED-PAYLOAD"), "{heads}");
    }
}
