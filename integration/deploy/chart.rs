//! The Helm chart with uploads, by Helm's own library: what is in the pods, and that there are
//! rights to the API server only where they are asked for.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{VERSIONS, can_validate, tools, validate};
use support::require;

/// The manifests of the chart with these values, or why there are none.
fn render(values: &Value) -> Result<Vec<u8>, String> {
    let repository = support::program::repository();
    let mut python = Command::new("python3")
        .arg("-B")
        .arg(repository.join("integration/deploy/render.py"))
        .arg(repository.join("deploy/helm"))
        .env("PYTHONPATH", tools().join("python"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(values.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The names of the kinds, and the pods' specification.
fn rendered(values: &Value) -> (Vec<String>, Value) {
    let manifests = render(values).unwrap();
    let documents = validate(&manifests, &VERSIONS).unwrap_or_else(|e| panic!("{values}: {e}"));
    let set = documents.iter().find(|document| document["kind"] == "DaemonSet").unwrap();
    let spec = set["spec"]["template"]["spec"].clone();
    (documents.iter().map(|d| d["kind"].as_str().unwrap().to_owned()).collect(), spec)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn uploads() {
    if !can_validate()
        || !(tools().join("python/helm_python").is_dir()
            || require::skip("helm-python-sdk is not there: integration/tools.sh fetches it"))
    {
        return;
    }
    let (kinds, spec) = rendered(&json!({}));
    assert_eq!(kinds, ["DaemonSet"]);
    assert_eq!(
        (names(&spec["containers"]), &spec["serviceAccountName"]),
        (vec!["node"], &json!("default"))
    );

    let config = "[upload]\nurl = \"s3://cores\"\n";
    let mut values = json!({"config": config, "upload": {"enabled": true, "secret": "keys"}});
    let (kinds, spec) = rendered(&values);
    assert_eq!(kinds, ["ConfigMap", "DaemonSet", "ServiceAccount"]);
    assert_eq!(names(&spec["containers"]), ["node", "upload"]);
    assert_eq!(spec["automountServiceAccountToken"], false);
    let upload = &spec["containers"][1];
    assert_eq!(upload["command"], json!(["/oci-coredump-ship"]));
    assert_eq!(upload["envFrom"], json!([{"secretRef": {"name": "keys"}}]));
    let security = &upload["securityContext"];
    assert_eq!(
        security["capabilities"],
        json!({"drop": ["ALL"], "add": ["DAC_READ_SEARCH", "SETUID", "SETGID"]})
    );
    assert_eq!(
        (&security["privileged"], &security["allowPrivilegeEscalation"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        names(&upload["volumeMounts"]),
        ["store", "upload", "config", "scratch", "certificates"]
    );
    for mount in upload["volumeMounts"].as_array().unwrap() {
        let is_own = ["upload", "scratch"].contains(&mount["name"].as_str().unwrap());
        assert_eq!(mount["readOnly"] == json!(true), !is_own, "{mount}");
    }

    values["upload"]["events"] = json!(true);
    values["upload"]["certificates"] = json!("");
    values["metrics"] = json!({"enabled": true});
    let (kinds, spec) = rendered(&values);
    assert!(kinds.contains(&"ClusterRole".to_owned()), "{kinds:?}");
    assert_eq!(names(&spec["containers"]), ["node", "metrics", "exporter", "upload"]);
    assert!(!names(&spec["volumes"]).contains(&"certificates"));
    assert!(names(&spec["containers"][3]["volumeMounts"]).contains(&"account"));
    assert!(!names(&spec["containers"][0]["volumeMounts"]).contains(&"account"));

    values["uninstall"] = json!(true);
    let (kinds, spec) = rendered(&values);
    // The account of uploads is gone.
    assert_eq!(spec["serviceAccountName"], "default");
    // Ready only when it has been done.
    assert_eq!(names(&spec["initContainers"]), ["uninstall"]);
    assert_eq!(
        spec["initContainers"][0]["securityContext"],
        spec["containers"][0]["securityContext"]
    );
    assert!(!names(&spec["containers"]).contains(&"upload"));
    assert!(!kinds.contains(&"ClusterRole".to_owned()));

    let said = render(&json!({"upload": {"enabled": true}})).unwrap_err();
    assert!(said.contains("upload.enabled needs `config`"), "{said}");
}
