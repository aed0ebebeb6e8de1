//! Reaching the cluster: addresses, user, TLS, and timeouts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::{Session, TlsContext};
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DbError, MetadataError, NewSessionError, RequestAttemptError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::statement::{Consistency, SerialConsistency};

/// How long one attempt of a conditional batch may take. Longer than the server's own timeout (2 s by default), so that
/// the answer is the server's, and the coordinator has given up before this process reads the outcome.
const CONDITIONAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a plain statement may take, its retries included.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many nodes must have a write, and which nodes decide a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// A majority in this data centre. Every process that serves a workspace must name the same one.
    Local,
    /// A majority of all nodes, in any data centre.
    Global,
}

impl Quorum {
    pub(super) fn consistency(self) -> Consistency {
        match self {
            Self::Local => Consistency::LocalQuorum,
            Self::Global => Consistency::Quorum,
        }
    }

    /// The consistency of commits and reads, in the words of OpenTelemetry's conventions.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Local => "local_quorum",
            Self::Global => "quorum",
        }
    }

    pub(super) fn serial(self) -> SerialConsistency {
        match self {
            Self::Local => SerialConsistency::LocalSerial,
            Self::Global => SerialConsistency::Serial,
        }
    }

    /// The consistency of a serial read.
    pub(super) fn serial_read(self) -> Consistency {
        match self {
            Self::Local => Consistency::LocalSerial,
            Self::Global => Consistency::Serial,
        }
    }
}

/// How to reach a cluster.
#[derive(Clone)]
pub struct Contact {
    /// `host:port` each; the other nodes are found through them.
    pub nodes: Vec<String>,
    /// The name of the keyspace: a letter, then letters, digits and `_`.
    pub keyspace: String,
    /// The data centre whose nodes are used; `None`: for a majority of one data centre, the only one seen at first,
    /// else any.
    pub datacenter: Option<String>,
    /// How many nodes must agree.
    pub quorum: Quorum,
    /// Name and password; `None`: the cluster asks for none.
    pub user: Option<(String, String)>,
    /// How connections are encrypted; `None`: they are not.
    pub tls: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Shows neither the password nor keys.
        f.debug_struct("Contact")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("datacenter", &self.datacenter)
            .field("quorum", &self.quorum)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No CQL node answered. A later retry may help.
    #[error("no CQL node can be reached: {0}")]
    Unreachable(String),
    /// A node answered, and rejected this client.
    #[error("the CQL cluster refuses this user: {0}")]
    Refused(String),
    /// A majority in one data centre is configured, but not which: each process would count its own.
    #[error(
        "the CQL cluster has the data centres {}: name the one whose nodes to use, the same for all servers of a \
         workspace (TERTULIA_CQL_DATACENTER), or use a majority of all nodes (TERTULIA_CQL_CONSISTENCY=quorum)",
        .0.join(", ")
    )]
    Datacenters(Vec<String>),
}

/// The execution profiles of statements.
#[derive(Clone, Debug)]
pub(super) struct Profiles {
    /// Conditional batches and reads of a commit's id: one attempt each. The driver's own retries would hide an unknown
    /// outcome.
    pub(super) conditional: ExecutionProfile,
    /// Conditions that are never met: they are idempotent, and take no longer than one that is met.
    pub(super) settled: ExecutionProfile,
    /// Everything else; it is idempotent.
    pub(super) plain: ExecutionProfile,
}

impl Profiles {
    /// The profiles for the nodes of a data centre; `None`: any nodes.
    fn new(contact: &Contact, datacenter: Option<String>) -> Self {
        let mut policy = DefaultPolicy::builder().token_aware(true);
        if let Some(datacenter) = datacenter {
            policy = policy.prefer_datacenter(datacenter);
        }
        let policy = policy.build();
        let profile = || {
            ExecutionProfile::builder()
                .consistency(contact.quorum.consistency())
                .serial_consistency(Some(contact.quorum.serial()))
                .load_balancing_policy(Arc::clone(&policy))
                .speculative_execution_policy(None)
        };
        Self {
            conditional: profile()
                .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
                .request_timeout(Some(CONDITIONAL_TIMEOUT))
                .build(),
            settled: profile()
                .retry_policy(Arc::new(DefaultRetryPolicy::new()))
                .request_timeout(Some(CONDITIONAL_TIMEOUT))
                .build(),
            plain: profile()
                .retry_policy(Arc::new(DefaultRetryPolicy::new()))
                .request_timeout(Some(PLAIN_TIMEOUT))
                .build(),
        }
    }
}

/// Opens a session that survives lost nodes and connections; and its execution profiles.
///
/// # Errors
/// See [`ConnectError`].
pub(super) async fn connect(contact: &Contact) -> Result<(Session, Profiles), ConnectError> {
    let profiles = Profiles::new(contact, contact.datacenter.clone());
    let mut otherwise = profiles.plain.clone().into_handle();
    let mut builder = SessionBuilder::new()
        .known_nodes(&contact.nodes)
        .default_execution_profile_handle(otherwise.clone())
        .connection_timeout(CONNECT_TIMEOUT)
        .keepalive_interval(Duration::from_secs(5))
        .keepalive_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .pool_size(PoolSize::default())
        .tls_context(contact.tls.clone().map(TlsContext::from));
    if let Some((name, password)) = &contact.user {
        builder = builder.user(name, password);
    }
    let session = builder.build().await.map_err(|error| classify(&error))?;
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info().iter();
    let datacenter = used_datacenter(contact, nodes.filter_map(|node| node.datacenter.clone()).collect())?;
    if datacenter == contact.datacenter {
        return Ok((session, profiles));
    }
    let profiles = Profiles::new(contact, datacenter);
    otherwise.map_to_another_profile(profiles.plain.clone());
    Ok((session, profiles))
}

/// The data centre whose nodes are used; `None`: any. Two servers must not use different majorities: those of two data
/// centres need not share a node, so each would miss what the other has acknowledged, and each would decide the same
/// condition. So without a name, a majority of one data centre means the only one, and that does not change when others
/// are added.
fn used_datacenter(contact: &Contact, mut seen: BTreeSet<String>) -> Result<Option<String>, ConnectError> {
    match contact {
        Contact { quorum: Quorum::Local, datacenter: None, .. } if seen.len() > 1 => {
            Err(ConnectError::Datacenters(seen.into_iter().collect()))
        }
        Contact { quorum: Quorum::Local, datacenter: None, .. } => Ok(seen.pop_first()),
        Contact { datacenter, .. } => Ok(datacenter.clone()),
    }
}

fn classify(error: &NewSessionError) -> ConnectError {
    let text = error.to_string();
    let refused = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(_)) => {
            text.contains("Authentication") || text.contains("authentication")
        }
        _ => false,
    };
    if refused { ConnectError::Refused(text) } else { ConnectError::Unreachable(text) }
}

/// Whether a statement that failed with this error certainly did not begin.
pub(super) fn was_not_begun(error: &scylla::errors::ExecutionError) -> bool {
    use scylla::errors::ExecutionError as E;
    match error {
        E::BadQuery(_) | E::EmptyPlan | E::PrepareError(_) | E::ConnectionPoolError(_) => true,
        E::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::DbError(db, _) => match db {
                DbError::SyntaxError
                | DbError::Invalid
                | DbError::Unauthorized
                | DbError::ConfigError
                | DbError::IsBootstrapping
                | DbError::Unprepared { .. } => true,
                // With a non-serial consistency it is about the phase after the decision.
                DbError::Unavailable { consistency, .. } => consistency.is_serial(),
                DbError::RateLimitReached { rejected_by_coordinator, .. } => *rejected_by_coordinator,
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_majority_of_several_data_centres_needs_a_named_one() {
        let contact = |quorum, datacenter: Option<&str>| Contact {
            nodes: Vec::new(),
            keyspace: "tertulia".to_owned(),
            datacenter: datacenter.map(str::to_owned),
            quorum,
            user: None,
            tls: None,
        };
        let seen = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let two = seen(&["us-east", "eu-west"]);
        let refused = used_datacenter(&contact(Quorum::Local, None), two.clone()).expect_err("nobody says which");
        let text = refused.to_string();
        assert!(matches!(refused, ConnectError::Datacenters(_)) && text.contains("eu-west, us-east"), "{text}");
        for (quorum, datacenter, seen, expected) in [
            (Quorum::Local, None, seen(&["eu-west"]), Some("eu-west")),
            (Quorum::Local, None, seen(&[]), None),
            (Quorum::Local, Some("eu-west"), two.clone(), Some("eu-west")),
            (Quorum::Global, None, seen(&["eu-west"]), None),
            (Quorum::Global, None, two, None),
        ] {
            let used = used_datacenter(&contact(quorum, datacenter), seen).expect("one majority");
            assert_eq!(used.as_deref(), expected, "{quorum:?} {datacenter:?}");
        }
    }
}
