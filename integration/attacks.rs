//! The attacks of docs/attacks.md, at least one test for every row, named after it: real crashes in
//! real containers, with the means of a hostile container author or a local user. Needs root and
//! the machine's `core_pattern`: run it with `--test-threads=1`.
#[path = "attacks/accounts.rs"]
mod accounts;
#[path = "attacks/files.rs"]
mod files;
#[path = "attacks/forwarded.rs"]
mod forwarded;
#[path = "attacks/groups.rs"]
mod groups;
#[path = "attacks/helper.rs"]
mod helper;
#[path = "attacks/hostile_names.rs"]
mod hostile_names;
#[path = "attacks/identity.rs"]
mod identity;
#[path = "attacks/kept_binaries.rs"]
mod kept_binaries;
#[path = "attacks/neighbours.rs"]
mod neighbours;
#[path = "attacks/privileges.rs"]
mod privileges;
#[path = "attacks/reading.rs"]
mod reading;
#[path = "attacks/resources.rs"]
mod resources;
#[path = "attacks/room.rs"]
mod room;
#[path = "attacks/stopped.rs"]
mod stopped;
