//! The engine as its users see it: commands to a node, and what its store holds afterwards.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod alarms;
mod catalog;
mod claims;
mod context;
mod damage;
mod drain;
mod erasure;
mod faults;
mod files;
mod forks;
mod golden;
mod host;
mod keys;
mod limits;
mod lines;
mod memories;
mod nodes;
mod outbox;
mod passivation;
mod properties;
mod reads;
mod recall;
mod subscriptions;
mod support;
mod tools;
mod torn;
mod traces;
mod turn_traces;
mod turns;
