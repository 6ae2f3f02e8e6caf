//! Kept programs of one container at the expense of another's.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use support::fixture::{bundle, crash};
use support::host::{Host, STORE};
use support::processes::helpers;
use support::runtime::{Container, Kind, Runtime};

const MIB: u64 = 1 << 20;

/// The kept programs of a container's last crash: path, and bytes on disk.
fn kept(host: &Host, id: &str) -> Vec<(PathBuf, u64)> {
    let record = host.records_of(id).pop().unwrap();
    let names = record["binaries"].as_object().unwrap_or(&serde_json::Map::new()).clone();
    let place = |name: &Value| Path::new(STORE).join("binaries").join(name.as_str().unwrap());
    let found = names.values().map(place).filter(|path| path.exists());
    found.map(|path| (path.clone(), path.metadata().unwrap().blocks() * 512)).collect()
}

/// Crashes of large programs that all differ. `holes`: their size is not allocated on disk.
fn programs(container: &Container<'_>, host: &Host, numbers: std::ops::Range<u32>, grow: &str) {
    for n in numbers {
        let file = format!("/tmp/big{n}");
        container.sh(&format!("cp /bin/crasher {file}; echo {n} >>{file}; {grow} {file}"));
        let (_, status) = crash(container, "0:0", "", &[&file, "null"]);
        assert_eq!(status & 0x7f, 11, "{file}");
        host.settle();
        assert!(!host.records().is_empty(), "{:?}", host.sysctl("kernel/core_pattern"));
        container.sh(&format!("rm {file}"));
    }
}

/// Sparse programs count with their allocated size. Full ones use up only the container's own
/// share, of which the newest are kept. After that a neighbour's program is kept as well.
#[test]
fn row_31_the_space_of_kept_programs() {
    let host = support::scene::host();
    host.configure(
        "[limits]\nrate = \"1000/s\"\n[binaries]\nmax_file = \"64M\"\nmax_total = \"100M\"\n",
    );
    let runtime = Runtime::new(Kind::Runc);
    let (greedy, _its_volume) = bundle();
    let greedy = runtime.start(&greedy, "greedy");
    let (calm, _volume) = bundle();
    let calm = runtime.start(&calm, "calm");

    programs(&greedy, &host, 0..3, "truncate -s 60M");
    for record in host.records_of("greedy") {
        let name = record["binaries"].as_object().unwrap().values().next().unwrap();
        let meta = fs::metadata(Path::new(STORE).join("binaries").join(name.as_str().unwrap()));
        let meta = meta.unwrap();
        assert_eq!(meta.len(), 60 * MIB);
        assert!(meta.blocks() * 512 < 2 * MIB, "{} bytes for a file of holes", meta.blocks() * 512);
    }

    // Eight of 15 MiB are more than the total; two are more than one share.
    programs(&greedy, &host, 10..18, "head -c 15728640 /dev/urandom >>");
    let newest = kept(&host, "greedy");
    assert_eq!(newest.len(), 1, "of its own the oldest go: {newest:?}");
    // Cores on a volume count for the volume, which is this container's alone.
    let by = fs::read_dir(Path::new(STORE).join("binaries/by")).unwrap();
    let mut accounts: Vec<_> = by.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(accounts.len(), 1);
    let own = fs::read_dir(accounts.remove(0)).unwrap();
    let all: u64 = own.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum();
    assert!(all <= 25 * MIB, "{all} bytes are kept for one container");

    crash(&calm, "0:0", "", &["/bin/crasher", "null"]);
    host.settle();
    assert_eq!(kept(&host, "calm").len(), 1, "the neighbour's program is not kept");
    assert_eq!(helpers(), [] as [i32; 0]);
}
