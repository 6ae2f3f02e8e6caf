//! Credentials of roles: of instances, containers and service accounts. The services are a few
//! lines of this test, by what the clouds say of theirs, at their addresses in a network namespace;
//! s3s-fs checks that requests are signed with the keys that they gave.

#[allow(dead_code)]
mod support;

use serde_json::json;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use support::http::{Request, serve};
use support::inside::is_inside;
use support::proxy::{Fault, Proxy};
use support::servers::{KEY, SECRET, Server, ask, moto, s3s, s3s_by_name};
use support::tls::{Authority, front_at};
use support::{Fixture, succeed};

fn at(address: &str, answer: impl Fn(&Request) -> (u16, String) + Send + 'static) {
    serve(TcpListener::bind(address).unwrap(), answer);
}

/// The program without any keys in its environment.
fn run(fixture: &Fixture, server: &Server, variables: &[(&str, &str)]) {
    let mut command = fixture.ship(&["run", "--once"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    succeed(command.envs(variables.iter().copied()));
    assert_eq!(server.objects().len(), 3, "{variables:?}");
    std::fs::remove_dir_all(fixture.path("s3/cores/node")).unwrap();
    std::fs::remove_dir_all(fixture.path("state")).unwrap();
}

/// "Use the Instance Metadata Service", "Task IAM role", "EKS Pod Identity", docs.aws.amazon.com.
#[test]
fn of_amazon() {
    let own = ["169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32"];
    if !is_inside("of_amazon", &own) {
        return;
    }
    let fixture = Fixture::new(1);
    let Some(server) = s3s(&fixture) else { return };
    fixture.configure(&server.settings(server.port));
    let keys = || {
        let keys = json!({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": KEY, "SecretAccessKey": SECRET,
            "Token": "session", "Expiration": "2099-01-01T00:00:00Z",
            "LastUpdated": "2026-01-01T00:00:00Z"
        });
        (200, keys.to_string())
    };
    const ROLES: &str = "GET /latest/meta-data/iam/security-credentials/";
    at("169.254.169.254:80", move |request| match request {
        r if r.is("PUT /latest/api/token")
            && r.has("x-aws-ec2-metadata-token-ttl-seconds: 600") =>
        {
            (200, "imds".into())
        }
        r if !r.has("x-aws-ec2-metadata-token: imds") => (401, String::new()),
        r if r.is(ROLES) => (200, "node".into()),
        r if r.is(&format!("{ROLES}node")) => keys(),
        _ => (404, String::new()),
    });
    run(&fixture, &server, &[]);
    at("169.254.170.2:80", move |request| match request {
        r if r.is("GET /v2/credentials/7") => keys(),
        _ => (404, String::new()),
    });
    run(&fixture, &server, &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/7")]);
    at("169.254.170.23:80", move |request| match request {
        r if r.is("GET /v1/credentials") && r.has("authorization: of the pod") => keys(),
        _ => (401, String::new()),
    });
    std::fs::write(fixture.path("token"), "of the pod").unwrap();
    let token = fixture.path("token");
    let full = "http://169.254.170.23/v1/credentials";
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
    ];
    run(&fixture, &server, &variables);
}

/// "IAM roles for service accounts", docs.aws.amazon.com: moto's STS gives keys for the token, and
/// requests are signed with these.
#[test]
fn of_an_amazon_service_account() {
    let fixture = Fixture::new(1);
    let Some(server) = moto(&fixture) else { return };
    let witness = Proxy::new(server.port, |_| Fault::None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, moto) = (listener.local_addr().unwrap().port(), server.port);
    let keys = Arc::new(Mutex::new(Vec::new()));
    let given = keys.clone();
    // STS takes its parameters in the address as well as in the body; moto only in the body.
    serve(listener, move |request| {
        let query = request.head[0].strip_prefix("POST /?").and_then(|rest| rest.split(' ').next());
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        let answer = ask(moto, "POST /", form, query.unwrap_or_default());
        let key = answer.split("<AccessKeyId>").nth(1).and_then(|rest| rest.split('<').next());
        given.lock().unwrap().push((query.unwrap_or_default().to_owned(), key.unwrap().to_owned()));
        (200, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    });
    let ours = Authority::new();
    std::fs::write(fixture.path("ca.pem"), &ours.pem).unwrap();
    std::fs::write(fixture.path("token"), "a.b.c").unwrap();
    let sts = format!("https://localhost:{}", front_at(0, ours.sign("localhost", true), port));
    let ca = format!("ca_file = {:?}\n", fixture.path("ca.pem"));
    fixture.configure(&(server.settings(witness.port) + &ca));
    let mut command = fixture.ship(&["run", "--once"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/cores");
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", fixture.path("token"));
    succeed(command.env("AWS_ENDPOINT_URL_STS", sts));
    let keys = keys.lock().unwrap();
    let [(query, key)] = keys.as_slice() else { panic!("{keys:?}") };
    for said in ["Action=AssumeRoleWithWebIdentity", "role%2Fcores", "WebIdentityToken=a.b.c"] {
        assert!(query.contains(said), "{query}");
    }
    let heads = witness.heads();
    assert!(heads.contains(&format!("Credential={key}/")), "{key}: {heads}");
    assert!(heads.contains("x-amz-security-token: "), "{heads}");
    assert!(heads.contains("record.json HTTP/1.1"), "{heads}");
}

/// "Instance RAM roles", "Instance metadata", "AssumeRoleWithOIDC", help.aliyun.com.
#[test]
fn of_alibaba() {
    if !is_inside("of_alibaba", &["100.100.100.200/32"]) {
        return;
    }
    let fixture = Fixture::new(1);
    let Some((server, witness)) = s3s_by_name(&fixture) else { return };
    let text = format!(
        "url = \"oss://cores/node\"\nregion = \"cn-hangzhou\"\nallow_http = true\n\
         endpoint = \"http://cores.localhost:{}\"\n",
        witness.port
    );
    fixture.configure(&text);
    let keys = |token: &str| {
        json!({
            "AccessKeyId": KEY, "AccessKeySecret": SECRET, "SecurityToken": token,
            "Expiration": "2099-01-01T00:00:00Z", "Code": "Success"
        })
    };
    const ROLES: &str = "GET /latest/meta-data/ram/security-credentials/";
    at("100.100.100.200:80", move |request| match request {
        r if r.is("PUT /latest/api/token")
            && r.has("x-aliyun-ecs-metadata-token-ttl-seconds: 600") =>
        {
            (200, "ecs".into())
        }
        r if !r.has("x-aliyun-ecs-metadata-token: ecs") => (403, String::new()),
        r if r.is(ROLES) => (200, "node".into()),
        r if r.is(&format!("{ROLES}node")) || r.is(&format!("{ROLES}other")) => {
            (200, keys("instance").to_string())
        }
        _ => (404, String::new()),
    });
    run(&fixture, &server, &[]);
    run(&fixture, &server, &[("ALIBABA_CLOUD_ECS_METADATA", "other")]);
    assert!(witness.heads().contains("x-amz-security-token: instance"));

    // RRSA: STS by TLS, in the place of the real one.
    let hosts = fixture.path("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost cores.localhost sts.aliyuncs.com\n").unwrap();
    succeed(Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, move |request| {
        let body = String::from_utf8_lossy(&request.body);
        let has = |pair: &str| body.split('&').any(|p| p == pair);
        let all = request.is("POST /")
            && has("Action=AssumeRoleWithOIDC")
            && has("Version=2015-04-01")
            && has("OIDCToken=a.b.c")
            && has("OIDCProviderArn=acs%3Aram%3A%3A1%3Aoidc-provider%2Fack")
            && has("RoleArn=acs%3Aram%3A%3A1%3Arole%2Fcores")
            && body.contains("SignatureNonce=");
        match all {
            true => (200, json!({"RequestId": "x", "Credentials": keys("account")}).to_string()),
            false => (400, body.into_owned()),
        }
    });
    let ours = Authority::new();
    front_at(443, ours.sign("sts.aliyuncs.com", true), port);
    std::fs::write(fixture.path("ca.pem"), &ours.pem).unwrap();
    std::fs::write(fixture.path("token"), "a.b.c\n").unwrap();
    let (token, ca) = (fixture.path("token"), fixture.path("ca.pem"));
    let variables = [
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", token.to_str().unwrap()),
        ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:ram::1:oidc-provider/ack"),
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/cores"),
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
    ];
    run(&fixture, &server, &variables);
    assert!(witness.heads().contains("x-amz-security-token: account"));
}

/// "Obtaining temporary access keys of an ECS", support.huaweicloud.com.
#[test]
fn of_huawei() {
    if !is_inside("of_huawei", &["169.254.169.254/32"]) {
        return;
    }
    let fixture = Fixture::new(1);
    let Some((server, witness)) = s3s_by_name(&fixture) else { return };
    fixture.configure(&format!(
        "url = \"obs://cores/node\"\nregion = \"cn-north-4\"\nallow_http = true\n\
         endpoint = \"http://cores.localhost:{}\"\n",
        witness.port
    ));
    at("169.254.169.254:80", move |request| match request {
        r if r.is("GET /openstack/latest/securitykey") => {
            let keys = json!({"credential": {
                "access": KEY, "secret": SECRET, "securitytoken": "agency",
                "expires_at": "2099-01-01T00:00:00.000000Z"
            }});
            (200, keys.to_string())
        }
        _ => (404, String::new()),
    });
    run(&fixture, &server, &[]);
}
