//! The generated protobuf types. They do not leave this folder.

#![allow(missing_docs, clippy::all, reason = "generated code")]
#![allow(clippy::allow_attributes_without_reason, clippy::needless_pass_by_value, reason = "generated code")]

include!("schema.rs");
