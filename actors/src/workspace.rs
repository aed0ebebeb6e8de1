//! Workspaces: isolated parts of an installation.

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::Address;

/// The workspace that is there from the first start. Its admins look after the whole installation, and what names no
/// workspace is about this one.
pub const DEFAULT: &str = "default";
/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Workspace {
    /// Its id, chosen by the client or made here.
    #[n(0)]
    pub id: String,
    /// What people call it.
    #[n(1)]
    pub name: String,
    /// When it was made.
    #[n(2)]
    pub created_at: Millis,
}

/// Where everything of the workspace with this id lives.
#[must_use]
pub fn address_of(workspace: &str) -> Address {
    Address::derive("workspace", &[workspace.as_bytes()])
}
