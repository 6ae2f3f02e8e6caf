//! oci-coredump
