//! The roles of messages that the runtime knows. Clients of the conversation store may use others.

/// A person, or a program that writes as one.
pub const USER: &str = "user";
/// An agent.
pub const ASSISTANT: &str = "assistant";
/// Instructions to agents.
pub const SYSTEM: &str = "system";
/// Instructions to agents, by the newer name of this role.
pub(crate) const DEVELOPER: &str = "developer";
/// The result of an agent's tool call.
pub const TOOL: &str = "tool";

/// The role, if models know it.
#[must_use]
pub fn known(role: &str) -> Option<&'static str> {
    [USER, ASSISTANT, SYSTEM, DEVELOPER, TOOL].into_iter().find(|known| *known == role)
}
