use super::*;

fn now() -> ZonedDateTime {
    "2026-03-10T12:00:00+00:00[UTC]".parse().unwrap()
}

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
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    Query::parse(&words, since, until, &now()).unwrap().takes(&record())
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
        &["signal=SEGV"],
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
        let e = format!("{:#}", Query::parse(&[word.into()], None, None, &now()).unwrap_err());
        assert!(e.contains(says), "{word:?}: {e}");
    }
    let e = format!("{:#}", Query::parse(&[], Some("soon"), None, &now()).unwrap_err());
    assert!(e.starts_with("--since \"soon\": expected a date"), "{e}");
}

#[test]
fn times() {
    for (text, expected) in [
        ("now", "2026-03-10T12:00:00Z"),
        ("today", "2026-03-10T00:00:00Z"),
        ("yesterday", "2026-03-09T00:00:00Z"),
        ("@0", "1970-01-01T00:00:00Z"),
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31 14:30", "2026-01-31T14:30:00Z"),
        ("2026-01-31T14:30:05", "2026-01-31T14:30:05Z"),
        ("2026-01-31T14:30:05+02:00", "2026-01-31T12:30:05Z"),
        ("08:15", "2026-03-10T08:15:00Z"),
        ("2h", "2026-03-10T10:00:00Z"),
        ("-2h", "2026-03-10T10:00:00Z"),
        ("2 hours ago", "2026-03-10T10:00:00Z"),
        ("1 day 2 hours ago", "2026-03-09T10:00:00Z"),
        ("1h 30m", "2026-03-10T10:30:00Z"),
        ("2 weeks", "2026-02-24T12:00:00Z"),
    ] {
        let t = when(text, &now()).unwrap_or_else(|e| panic!("{text}: {e:#}"));
        assert_eq!(t.to_string(), expected, "{text}");
    }
    for text in ["", "soon", "2026-13-01", "25:00", "@x", "9999999 years"] {
        assert!(when(text, &now()).is_err(), "{text}");
    }
}

#[test]
fn bounds_of_time() {
    for (since, until, yes) in [
        (Some("2h"), None, true),
        (Some("1h"), None, false),
        (None, Some("1h"), true),
        (Some("10:30"), Some("10:30"), true),
        (None, Some("2h"), false),
    ] {
        assert_eq!(takes(&[], since, until), yes, "{since:?} {until:?}");
    }
    let undated = Record { time: "?".into(), ..record() };
    assert!(Query::default().takes(&undated));
    assert!(!Query { since: Some(Timestamp::UNIX_EPOCH), ..Query::default() }.takes(&undated));
}
