//! The differential oracle. Needs root.
mod support;

use support::{crasher, host::Host};

#[test]
fn support_works() {
    let host = Host::take();
    println!("{:?} {:?} {:?}", crasher::crasher(), crasher::parent(), host.records());
}
