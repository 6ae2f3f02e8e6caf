use super::*;

fn record() -> Record {
    Record {
        time: "2026-03-10T10:30:00Z".into(),
        names: Names {
            container_id: "4f3c9a1b2d5e6f708192".into(),
            container_name: Some("web".into()),
            pod_name: Some("shop-0".into()),
            pod_namespace: Some("prod".into()),
            image: Some("registry/shop:1.2".into()),
        },
        pid: 12,
        host_pid: 4711,
        tid: 13,
        host_tid: 4712,
        signal: 11,
        signal_name: "SIGSEGV".into(),
        comm: "worker".into(),
        exe: "/usr/bin/nginx".into(),
        core_path: Some("/dump/core-eci.12".into()),
        host_path: Some("/srv/vol/core-eci.12".into()),
        ..Record::default()
    }
}

fn takes(words: &[&str], since: Option<&str>, until: Option<&str>) -> bool {
    let words = words.iter().map(|w| w.parse().unwrap()).collect();
    let at = |time: Option<&str>| time.map(|t| format!("2026-03-10T{t}:00Z").parse().unwrap());
    Query::new(words, at(since), at(until)).takes(&record())
}

#[test]
fn words() {
    let yes: &[&[&str]] = &[
        &[],
        &["12"],
        &["4711"],
        &["13"],
        &["/usr/bin/nginx"],
        &["/dump/core-eci.12"],
        &["/srv/vol/core-eci.12"],
        &["nginx"],
        &["ngin*"],
        &["worker"],
        &["web"],
        &["4f3c"],
        &["4f3c9a1b2d5e6f708192"],
        &["shop-0"],
        &["prod/shop-0/web"],
        &["SIGSEGV"],
        &["container=web"],
        &["pod=shop-?"],
        &["namespace=prod"],
        &["image=*shop:*"],
        &["exe=nginx"],
        &["comm=worker"],
        &["pid=12"],
        &["segv"],
        &["signal=SIGSEGV"],
        &["signal=SEGV"],
        &["signal=segv"],
        &["signal=sigsegv"],
        &["signal=SE*"],
        &["signal=11"],
        &["core=core-eci.*"],
        &["pod=shop-0", "nginx", "12"],
    ];
    for words in yes {
        assert!(takes(words, None, None), "{words:?}");
    }
    let no: &[&[&str]] = &[
        &["14"],
        &["nginy"],
        &["/usr/bin"],
        &["pod=shop"],
        &["prod"],
        &["container=3c9"],
        &["nginx", "13", "pod=x"],
        &["pid=nginx"],
        &["signal=6"],
    ];
    for words in no {
        assert!(!takes(words, None, None), "{words:?}");
    }
}

#[test]
fn wrong_words_are_named() {
    for (word, says) in [("", "expected"), ("podd=x", "podd"), ("=x", "no field \"\"")] {
        let e = format!("{:#}", word.parse::<Term>().unwrap_err());
        assert!(e.contains(says), "{word:?}: {e}");
    }
}

#[test]
fn bounds_of_time() {
    for (since, until, yes) in [
        (Some("10:00"), None, true),
        (Some("11:00"), None, false),
        (None, Some("11:00"), true),
        (Some("10:30"), Some("10:30"), true),
        (None, Some("10:00"), false),
    ] {
        assert_eq!(takes(&[], since, until), yes, "{since:?} {until:?}");
    }
    let undated = Record { time: "?".into(), ..record() };
    assert!(Query::default().takes(&undated));
    assert!(!Query { since: Some(Timestamp::UNIX_EPOCH), ..Query::default() }.takes(&undated));
}
