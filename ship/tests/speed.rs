//! `make bench-ship`: how fast a core goes to a server on this machine, and what that takes of the
//! processor, beside the server's own command line client. Prints, and asserts no time.

#[allow(dead_code)]
mod support;

use std::process::Command;
use support::servers::{KEY, SECRET, require, s3s};
use support::{Fixture, ID};

const ROUNDS: usize = 3;
const GIB: f64 = (1u64 << 30) as f64;

/// Seconds that a command takes, and those of the processor, its children's too.
fn time(command: &Command) -> [f64; 2] {
    let mut bash = Command::new("bash");
    bash.args(["-c", "TIMEFORMAT='%R %U %S'; time \"$@\" 2>/dev/null >/dev/null", "time"]);
    bash.arg(command.get_program()).args(command.get_args()).env_clear();
    bash.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let out = support::succeed(&mut bash);
    let said = support::stderr(&out);
    let figures: Vec<f64> =
        said.lines().last().unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
    [figures[0], figures[1] + figures[2]]
}

fn print(name: &str, size: u64, mut times: Vec<[f64; 2]>) {
    times.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let [real, cpu] = times[times.len() / 2];
    let gib = size as f64 / GIB;
    println!(
        "{name:<28} {:>6.0} MiB/s {:>6.2} s of the processor for a GiB",
        gib * 1024.0 / real,
        cpu / gib
    );
}

#[test]
#[ignore = "make bench-ship"]
fn against_the_servers_own_client() {
    let fixture = Fixture::new(1024);
    let Some(server) = s3s(&fixture) else { return };
    let size = fixture.core.metadata().unwrap().len();
    let server_url = format!("http://127.0.0.1:{}", server.port);
    let aws = |mut command: Command, concurrent: &str| {
        let config = fixture.path(&format!("aws-{concurrent}"));
        let text = format!(
            "[default]\nregion = us-east-1\ns3 =\n  max_concurrent_requests = {concurrent}\n"
        );
        std::fs::write(&config, text).unwrap();
        command.env_clear().env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_CONFIG_FILE", config).env("PATH", std::env::var_os("PATH").unwrap());
        command.args(["--endpoint-url", &server_url, "s3", "cp"]).arg(&fixture.core);
        command.arg("s3://cores/node/aws");
        command
    };
    let (mut core, mut bundle, mut one, mut ten) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        for (what, times) in [("core", &mut core), ("bundle", &mut bundle)] {
            let _ = std::fs::remove_dir_all(fixture.path("state"));
            let more = format!("what = {what:?}\nreport = false\n");
            fixture.configure(&(server.settings(server.port) + &more));
            times.push(time(&fixture.ship(&["run", "--once"])));
        }
        let Some(program) = require("aws") else { break };
        one.push(time(&aws(Command::new(&program), "1")));
        ten.push(time(&aws(Command::new(&program), "10")));
    }
    let there = server.object(&format!("prod/shop-0/web/{ID}/core"));
    assert_eq!(there.metadata().unwrap().len(), size);
    println!("a core of {} MiB, which does not compress, to s3s-fs on this machine", size >> 20);
    print("the core", size, core);
    print("its bundle", size, bundle);
    if !ten.is_empty() {
        print("aws s3 cp, one request", size, one);
        print("aws s3 cp, ten requests", size, ten);
    }
}
