//! Tests of the front door: the router in this process, and the program itself.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what it is for")]

mod agents;
mod amendments;
mod api_keys;
mod attachments;
mod auth;
mod bodies;
mod bootstrap;
mod bulk;
mod bursts;
mod busy;
mod channel_messages;
mod channels;
mod contact_messages;
mod contacts;
mod conversation_messages;
mod crash;
mod crash_turns;
mod damage;
mod egress;
mod examples;
mod faults;
mod followers;
mod forks;
mod forwarding;
mod idempotency;
mod isolation;
mod media;
mod memories;
mod models;
mod nodes;
mod openapi;
mod order_of_checks;
mod paging;
mod promises;
mod queries;
mod races;
mod review_answers;
mod reviews;
mod same_bytes;
mod seeds;
mod smoke;
mod streams;
mod support;
mod telemetry;
mod tidy;
mod timers;
mod tools;
mod transfer;
mod turns;
mod unreachable_store;
mod webhook_endpoints;
mod webhooks;
mod workspaces;

bed::keeper!();
