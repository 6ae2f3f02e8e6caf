//! Azure, against its maker's emulator; Alibaba's and Huawei's S3 interfaces, against a server that
//! checks signatures; Google's XML interface, whose uploads in parts are S3's, against moto.

#[allow(dead_code)]
mod support;

use std::net::TcpListener;
use std::process::Command;
use support::servers::{self, azurite, moto, s3s_by_name};
use support::sigv4::Head;
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
        // By the cloud's own rules too, whose implementation is held to published examples.
        let own = Head::all(&heads);
        let own = own.iter().filter(|head| head.target.starts_with(&format!("/{scheme}/")));
        let good = own.filter(|head| head.said() == head.signature(servers::SECRET)).count();
        assert!(good >= 8, "only {good} requests are signed as they must be");
        assert!(heads.contains("/cn-hangzhou/s3/aws4_request") || scheme == "obs", "{heads}");
    }
}

/// The published examples, "Examples: Signature Calculations in AWS Signature Version 4",
/// docs.aws.amazon.com. They hold what checks the requests above.
#[test]
fn published_signatures() {
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let file = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let dated = "date: Fri, 24 May 2013 00:00:00 GMT\nx-amz-storage-class: REDUCED_REDUNDANCY";
    for (request, more, names, hash, signature) in [
        (
            "GET /test.txt",
            "range: bytes=0-9",
            "host;range;x-amz-content-sha256;x-amz-date",
            EMPTY,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT /test%24file.text",
            dated,
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            file,
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET /?lifecycle",
            "x: y",
            "host;x-amz-content-sha256;x-amz-date",
            EMPTY,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET /?max-keys=2&prefix=J",
            "x: y",
            "host;x-amz-content-sha256;x-amz-date",
            EMPTY,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        let key = servers::KEY;
        let text = format!(
            "{request} HTTP/1.1\nhost: examplebucket.s3.amazonaws.com\n{more}\n\
             x-amz-content-sha256: {hash}\nx-amz-date: 20130524T000000Z\n\
             authorization: AWS4-HMAC-SHA256 Credential={key}/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders={names},Signature=x\n"
        );
        let [head] = Head::all(&text).try_into().ok().unwrap();
        assert_eq!(head.signature(servers::SECRET), signature, "{request}");
    }
}

/// Google's storage with the service account of an instance. No emulator of it that there is has
/// uploads in parts by its XML interface; Google describes them as S3's, and moto has those.
#[test]
fn google() {
    let fixture = Fixture::new(20);
    let Some(server) = moto(&fixture) else { return };
    let witness = support::proxy::Proxy::new(server.port, |_| support::proxy::Fault::None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let metadata = listener.local_addr().unwrap().to_string();
    const ACCOUNT: &str = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    support::http::serve(listener, |request| {
        let is = request.head[0].starts_with(ACCOUNT) && request.has("metadata-flavor: google");
        let token = serde_json::json!({"access_token": "of-the-node", "expires_in": 3600});
        if is { (200, token.to_string()) } else { (404, String::new()) }
    });
    fixture.configure(&format!(
        "url = \"gs://cores/node\"\nendpoint = \"http://127.0.0.1:{}\"\nallow_http = true\n\
         storage_class = \"NEARLINE\"\n",
        witness.port
    ));
    let run = |args: &[&str]| {
        let mut command = fixture.ship(args);
        succeed(command.env("GCE_METADATA_HOST", &metadata)).stdout
    };
    run(&["run", "--once"]);
    let url = format!("gs://cores/node/{DIR}/{ID}");
    assert!(run(&["cat", &url]) == fixture.bundle());
    for name in ["report.html", "record.json"] {
        assert!(!run(&["cat", &format!("{url}/{name}")]).is_empty());
    }
    let heads = witness.heads();
    for said in ["uploadId=", "x-goog-storage-class: NEARLINE", "authorization: Bearer of-the-node"]
    {
        assert!(heads.contains(said), "{said}: {heads}");
    }
    assert!(!heads.contains(servers::KEY), "another cloud's key");
}
