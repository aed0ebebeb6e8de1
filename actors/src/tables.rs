//! Stored data besides the log: every table of keyed rows and every list (view) of a workspace, with its number.
//!
//! An entity's own rows are in a [`Table`], which only entities of its kind have; entries that are looked up without
//! knowing the entity are in a [`View`], which is shared by all entities of a workspace. Numbers are stored: a new one
//! is the next free one of its kind, and one that was given out is never used for anything else.

use crate::store::{Table, View};

/// Declares the numbers of one kind, and names them all for the test that no two are the same.
macro_rules! numbers {
    ($kind:ident: $of:ident { $( $(#[doc = $meaning:literal])+ $name:ident = $number:literal, )+ }) => {
        $( $(#[doc = $meaning])+ pub const $name: $of = $of($number); )+

        #[cfg(test)]
        const $kind: &[(&str, u8)] = &[$( (stringify!($name), $number), )+];
    };
}

numbers! {
    OF_CONVERSATIONS: Table {
        /// Changes of accepted messages, by sequence: an [`Overlay`](crate::message::Overlay) each.
        OVERLAYS = 1,
        /// Pending reviews, by deadline and sequence.
        DEADLINES = 2,
        /// Turns, by number.
        TURNS = 3,
        /// Title, summary and metadata, under the empty key.
        DETAILS = 4,
        /// Numbers of turns that had to wait, by the idempotency key of their request and its time: such a turn is no
        /// event that the key could name.
        REQUESTED_TURNS = 5,
        /// Calls of tools by the number of their turn, while one of them has no result.
        CALLS = 10,
        /// Errands to other conversations.
        ERRANDS = 11,
        /// The sequence of a message's copy, by the sequence of the original.
        COPIES = 16,
        /// The conversation's bindings of files, by the file's address.
        ATTACHED = 17,
        /// Files that messages mention without having them, by the file's address and the message's sequence.
        MENTIONED = 18,
        /// The stored answers to keyed requests about a message, by its sequence, the idempotency key and the time:
        /// an [`Overlay`](crate::message::Overlay) as it was then. The log does not have it, because edited text is never
        /// in the log.
        REPLAYS = 20,
        /// Claims of workspace-wide idempotency keys, by key; see [`claims`](crate::workflows::claims).
        CLAIMS = 21,
        /// Erased contacts with whom copies are barred here, by address: the time of the last one's id.
        BARRED = 22,
        /// Since when rows kept for retries exist, by time, table and key.
        RETRY_ROWS = 40,
    }
}

numbers! {
    // Of conversations and contacts: entities whose events are sent.
    OF_SENDERS: Table {
        /// Waiting lanes, by `Lane::key`.
        LANES = 6,
        /// Their resume times, by `Lane::time_key`.
        LANE_TIMES = 7,
        /// Deliveries that have ended, by event and receiver.
        DELIVERIES = 8,
        /// The answers to the newest keyed retry requests for a delivery, by event and receiver.
        RETRIED = 9,
    }
}

numbers! {
    OF_CONTACTS: Table {
        /// Copies of the contact's conversations, by their addresses: a [`Copied`](crate::contact::Copied) each.
        FORKS = 53,
        /// The contact's last conversations on channels for which its state has no room, by the channel's incarnation:
        /// an [`OverflowRow`](crate::contact::OverflowRow) each.
        CHANNELS_ASIDE = 54,
    }
}

numbers! {
    OF_MEMORIES: Table {
        /// Memories, by number.
        MEMORIES = 13,
        /// Their vectors, by number.
        VECTORS = 14,
        /// The number of the memory that a slot has, by the hash of the slot.
        SLOTS = 15,
    }
}

numbers! {
    OF_WORKSPACES: Table {
        /// Channels, by id.
        CHANNELS = 16,
        /// Agents, by id.
        AGENTS = 17,
        /// Webhook endpoints, by id.
        WEBHOOK_ENDPOINTS = 45,
        /// Ids of channels that were deleted, with the incarnation of the one that had it last.
        DELETED_CHANNELS = 56,
    }
}

numbers! {
    // Of workspaces and the installation.
    OF_REGISTRIES: Table {
        /// Ids of resources, by kind and the sequence of the change that created them; see
        /// [`places`](crate::registry::places).
        IN_ORDER = 60,
        /// That sequence, by kind and id.
        PLACES = 61,
    }
}

numbers! {
    OF_THE_INSTALLATION: Table {
        /// Workspaces, by id.
        WORKSPACES = 32,
        /// API keys, by the first 16 bytes of their hash.
        KEYS_BY_HASH = 33,
        /// The hash of each API key, by workspace and id.
        KEYS_BY_ID = 34,
        /// Settings of the installation as a whole, by name.
        SETTINGS = 35,
    }
}

numbers! {
    LISTS: View {
        /// Conversations by id, without those of human channels.
        CONVERSATIONS = 1,
        /// Contacts by id.
        CONTACTS = 2,
        /// Conversations by contact id and conversation id.
        CONTACT_CONVERSATIONS = 3,
        /// Reviews by place and message id.
        REVIEWS = 4,
        /// Pending reviews by place and message id.
        PENDING_REVIEWS = 5,
        /// Pending deliveries, by endpoint, entity and lane.
        PENDING = 10,
        /// Deliveries that have ended, by id.
        ENDED = 11,
        /// Deliveries that have ended, by endpoint and id.
        ENDED_BY_ENDPOINT = 12,
        /// Deliveries that have failed, by id.
        FAILED = 13,
        /// Calls of models by day, conversation and sequence.
        USED = 15,
        /// Contacts by name and id; see [`name_key`](crate::contact::name_key).
        CONTACTS_BY_NAME = 17,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_number_means_two_things_within_a_kind() {
        type Given = &'static [(&'static str, u8)];
        let kinds: [(&str, &[Given]); 6] = [
            ("conversations", &[OF_CONVERSATIONS, OF_SENDERS]),
            ("contacts", &[OF_CONTACTS, OF_SENDERS]),
            ("memories", &[OF_MEMORIES]),
            ("workspaces", &[OF_WORKSPACES, OF_REGISTRIES]),
            ("the installation", &[OF_THE_INSTALLATION, OF_REGISTRIES]),
            ("lists", &[LISTS]),
        ];
        for (kind, groups) in kinds {
            let mut given = BTreeMap::new();
            for (name, number) in groups.iter().copied().flatten() {
                let other = given.insert(number, name);
                assert_eq!(other, None, "{number} of {kind} is {name} too");
            }
        }
    }
}
