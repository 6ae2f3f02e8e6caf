//! The NRI plugin: containerd and CRI-O call it for every container that they create, and it
//! adjusts those that request a core pattern.
//!
//! In: the engine's socket. Out: hooks, RLIMIT_CORE (so that exec'd processes have it too) and
//! names. One thread and no state: an answer depends only on the call and waits for nothing, so
//! that the engine's limit of two seconds is never reached. A call that cannot be understood is
//! answered with no adjustment.
//!
//! The dump directory is not mounted by an adjustment but by the hook that is added. Whether there
//! is a volume, and whether something exists there that must not be hidden, can only be seen in the
//! container's mount namespace, after the mounts of the image, the engine and the pod. An
//! adjustment would have to guess it, would hide what an image has there, and would leave a
//! directory in the store for each container that fails to start.
//!
//! The `ttrpc` crate is not used: its server and client need sockets of their own, which the
//! engine's one multiplexed socket does not offer. What would remain of it, a header of ten bytes
//! and two messages, is less than its dependencies.

mod adjust;
mod messages;
mod mux;

use super::options::Program;
use crate::config::{self, Config};
use crate::sys::proc::Proc;
use crate::sys::{descriptor, socket};
use anyhow::{Context, Result, bail, ensure};
use messages::{
    ConfigureRequest, ConfigureResponse, CreateContainerRequest, CreateContainerResponse,
    RegisterPluginRequest, Request, Response, Status,
};
use mux::{Connection, FrameKind, Mux, TtrpcFrame};
use prost::Message as _;
use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where engines accept plugins that they did not start.
pub const SOCKET: &str = "/var/run/nri/nri.sock";

/// Where engines look for plugins that they start.
pub(super) const PLUGINS: &str = "/opt/nri/plugins";

/// What an engine's configuration says of NRI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NriInUse {
    pub is_on: bool,
    /// Where the engine looks for plugins.
    pub plugins: PathBuf,
    /// Where it accepts others.
    pub socket: PathBuf,
}

/// Environment variable with the descriptor of the socket, in a plugin that the engine starts.
const SOCKET_VARIABLE: &str = "NRI_PLUGIN_SOCKET";

const NAME: &str = "oci-coredump";
/// Index of the plugin. Plugins are called in this order: late, so that it
/// sees what others have set.
pub const INDEX: &str = "90";
/// Name of the plugin after its index.
pub const SUFFIX: &str = "-oci-coredump";

/// gRPC's status code for a method that does not exist.
const UNIMPLEMENTED: i32 = 12;

/// Whether an engine has started this program as its plugin `NN-oci-coredump`.
pub fn is_plugin(own_name: &OsStr) -> bool {
    let name = Path::new(own_name).file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.ends_with(SUFFIX) && std::env::var_os(SOCKET_VARIABLE).is_some()
}

/// Serves the engine that has started this process, until the engine ends.
///
/// # Errors
/// The socket is not valid, or the engine breaks the protocol.
pub fn run_started() -> Result<()> {
    let number = std::env::var(SOCKET_VARIABLE)
        .ok()
        .and_then(|n| n.parse().ok())
        .context("NRI_PLUGIN_SOCKET is no number")?;
    let fd = descriptor::inherited(number)
        .with_context(|| format!("{SOCKET_VARIABLE}={number} is not open"))?;
    let variable =
        |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let us = PluginIdentity {
        name: variable("NRI_PLUGIN_NAME", NAME),
        index: variable("NRI_PLUGIN_IDX", INDEX),
        program: Program::own()?,
        config: config::PATH.into(),
    };
    serve(UnixStream::from(fd), &us)
}

/// Connects to an engine and serves it. Reconnects for ever, since engines are restarted.
///
/// # Errors
/// This program does not know its own path.
pub fn run_connecting(path: &Path) -> Result<std::convert::Infallible> {
    const PAUSE: Duration = Duration::from_secs(1);
    let us = PluginIdentity {
        name: NAME.into(),
        index: INDEX.into(),
        program: Program::own()?,
        config: config::PATH.into(),
    };
    let mut said = String::new();
    loop {
        let attempt = || -> Result<()> {
            let socket = UnixStream::connect(path)
                .with_context(|| format!("connect to {}", path.display()))?;
            log::info!("nri: connected to {}", path.display());
            serve(socket, &us)
        };
        let now = match attempt() {
            Ok(()) => "the engine has closed the connection".to_owned(),
            Err(e) => format!("{e:#}"),
        };
        // Log a failure once, not every second.
        if now != said {
            log::warn!("nri: {now}, trying again every second");
            said = now;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The plugin's own paths. That of the program is recorded at the start: a newer version is
/// installed at the same path, while /proc/self/exe would say "(deleted)".
struct PluginIdentity {
    name: String,
    index: String,
    program: Program,
    /// Path of the configuration; [`config::PATH`].
    config: PathBuf,
}

fn serve(socket: UnixStream, us: &PluginIdentity) -> Result<()> {
    let engine = socket::peer(&socket)?;
    let mut mux = Mux::new(socket);
    let register =
        RegisterPluginRequest { plugin_name: us.name.clone(), plugin_idx: us.index.clone() };
    let request = Request {
        service: messages::RUNTIME.into(),
        method: "RegisterPlugin".into(),
        payload: register.encode_to_vec(),
    };
    mux.send(
        Connection::Runtime,
        &TtrpcFrame { stream: 1, kind: FrameKind::Request, payload: request.encode_to_vec() },
    )?;
    while let Some((connection, message)) = mux.receive()? {
        match (connection, message.kind) {
            (Connection::Runtime, FrameKind::Response) => registered(&message.payload)?,
            (Connection::Plugin, FrameKind::Request) => {
                let payload = answer(&message.payload, engine, us).encode_to_vec();
                mux.send(
                    Connection::Plugin,
                    &TtrpcFrame { stream: message.stream, kind: FrameKind::Response, payload },
                )?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn registered(payload: &[u8]) -> Result<()> {
    let status =
        Response::decode(payload).context("answer to RegisterPlugin")?.status.unwrap_or_default();
    ensure!(
        status.code == 0,
        "the engine refuses this plugin: {:?} (code {})",
        status.message,
        status.code
    );
    Ok(())
}

/// The answer to a call.
fn answer(payload: &[u8], engine: i32, us: &PluginIdentity) -> Response {
    let ok = |payload: Vec<u8>| Response { status: None, payload };
    let done = Request::decode(payload).context("request").and_then(|request| {
        if request.service != messages::PLUGIN {
            bail!("no service {:?}", request.service);
        }
        Ok(match request.method.as_str() {
            "Configure" => {
                let engine =
                    ConfigureRequest::decode(request.payload.as_slice()).unwrap_or_default();
                log::info!("nri: serving {} {}", engine.runtime_name, engine.runtime_version);
                Some(ConfigureResponse { events: messages::CREATE_CONTAINER }.encode_to_vec())
            }
            "Synchronize" => {
                let more = messages::SynchronizeRequest::decode(request.payload.as_slice())
                    .unwrap_or_default()
                    .more;
                Some(messages::SynchronizeResponse { more }.encode_to_vec())
            }
            "CreateContainer" => Some(create(&request.payload, engine, us).encode_to_vec()),
            // Events that were not subscribed to. Their answers have no fields that must be set.
            "Shutdown" | "StateChange" => Some(Vec::new()),
            _ => None,
        })
    });
    match done {
        Ok(Some(payload)) => ok(payload),
        Ok(None) => Response {
            status: Some(Status { code: UNIMPLEMENTED, message: "not implemented".into() }),
            payload: Vec::new(),
        },
        Err(e) => Response {
            status: Some(Status { code: UNIMPLEMENTED, message: format!("{e:#}") }),
            payload: Vec::new(),
        },
    }
}

/// The adjustment of a new container. After a failure it is empty, and the container
/// starts without a core pattern.
fn create(payload: &[u8], engine: i32, us: &PluginIdentity) -> CreateContainerResponse {
    let program = &us.program;
    let attempt = || -> Result<_> {
        let request = CreateContainerRequest::decode(payload).context("CreateContainer")?;
        // Read for every container, so that a change needs no restart of the engine.
        let config = Config::load_from(&us.config)?;
        if let Err(e) = crate::sysctl::mend(&config) {
            log::warn!("kernel.core_pattern cannot be put back, ignoring: {e:#}");
        }
        // A hook whose program is missing would fail the container.
        ensure!(program.path.exists(), "{} is gone", program.path.display());
        let reach = Proc::open(engine)?.core_limit()?.hard.unwrap_or(u64::MAX);
        Ok(adjust::adjust(&request, &config, program.text()?, reach))
    };
    let adjust = attempt().unwrap_or_else(|e| {
        log::warn!("nri: {e:#}, the container is not adjusted");
        None
    });
    CreateContainerResponse { adjust }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plugin without a configuration, so that the machine's own is not used.
    fn plugin(program: &str) -> PluginIdentity {
        PluginIdentity {
            name: "p".into(),
            index: "10".into(),
            program: Program { path: program.into() },
            config: "/nonexistent/config.toml".into(),
        }
    }

    fn ask_with(program: &str, method: &str, payload: Vec<u8>) -> Response {
        let request = Request { service: messages::PLUGIN.into(), method: method.into(), payload };
        answer(&request.encode_to_vec(), std::process::id() as i32, &plugin(program))
    }

    fn ask(method: &str, payload: Vec<u8>) -> Response {
        ask_with("/proc/self/exe", method, payload)
    }

    #[test]
    fn no_hook_without_its_program() {
        let container = messages::Container {
            annotations: [("oci-coredump/pattern".into(), "/d/core".into())].into(),
            ..Default::default()
        };
        let request =
            CreateContainerRequest { pod: None, container: Some(container) }.encode_to_vec();
        assert_eq!(
            ask_with("/nowhere/oci-coredump", "CreateContainer", request.clone()),
            Response::default()
        );
        assert_ne!(ask("CreateContainer", request), Response::default());
    }

    #[test]
    fn every_question_has_an_answer() {
        assert_eq!(ask("Configure", vec![]).payload, [0x10, 8]);
        assert_eq!(ask("Synchronize", vec![0x18, 1]).payload, [0x10, 1]);
        assert_eq!(ask("CreateContainer", vec![]), Response::default());
        // A malformed call is answered with no adjustment, not with a failure of the container.
        assert_eq!(ask("CreateContainer", vec![0xff; 9]), Response::default());
        assert_eq!(ask("Shutdown", vec![]), Response::default());
        assert_eq!(ask("New", vec![]).status.unwrap().code, UNIMPLEMENTED);
        assert_eq!(answer(&[0xff; 9], 1, &plugin("/p")).status.unwrap().code, UNIMPLEMENTED);
    }

    #[test]
    fn a_whole_conversation() {
        let (engine, socket) = UnixStream::pair().unwrap();
        let served = std::thread::spawn(move || serve(socket, &plugin("/p")));
        let mut engine = Mux::new(engine);
        let (connection, message) = engine.receive().unwrap().unwrap();
        let request = Request::decode(message.payload.as_slice()).unwrap();
        assert_eq!((connection, request.method.as_str()), (Connection::Runtime, "RegisterPlugin"));
        assert_eq!(request.payload, b"\x0a\x01p\x12\x0210");
        // The engine calls before it has answered, as containerd does.
        let configure = Request {
            service: messages::PLUGIN.into(),
            method: "Configure".into(),
            payload: vec![],
        }
        .encode_to_vec();
        engine
            .send(
                Connection::Plugin,
                &TtrpcFrame { stream: 1, kind: FrameKind::Request, payload: configure },
            )
            .unwrap();
        let (connection, message) = engine.receive().unwrap().unwrap();
        assert_eq!(
            (connection, message.kind, message.stream),
            (Connection::Plugin, FrameKind::Response, 1)
        );
        engine
            .send(
                Connection::Runtime,
                &TtrpcFrame { stream: 1, kind: FrameKind::Response, payload: vec![] },
            )
            .unwrap();
        drop(engine);
        served.join().unwrap().unwrap();
    }

    #[test]
    fn a_refusal_is_an_error() {
        let status = Some(Status { code: 3, message: "no\nthanks".into() });
        let error = registered(&Response { status, payload: vec![] }.encode_to_vec())
            .unwrap_err()
            .to_string();
        assert!(error.contains(r#""no\nthanks""#), "{error}");
    }
}
