//! Workspaces: isolated parts of an installation.

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::Address;

/// The workspace that exists from the first start. Its admins manage the whole installation, and it is the default
/// where no workspace is named.
pub const DEFAULT: &str = "default";
/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Workspace {
    /// Its id, chosen by the client or made here.
    #[n(0)]
    pub id: String,
    /// Its display name.
    #[n(1)]
    pub name: String,
    /// When it was made.
    #[n(2)]
    pub created_at: Millis,
}

/// The address of everything in the workspace with this id.
#[must_use]
pub fn address_of(workspace: &str) -> Address {
    Address::derive("workspace", &[workspace.as_bytes()])
}
