//! The settings of the CQL cluster.

use std::path::PathBuf;

use super::{InvalidSetting, Secret, Values, parse};

/// How many nodes must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// A majority in the data centre.
    LocalQuorum,
    /// A majority of all nodes.
    Quorum,
}

/// See `config.default.toml`.
#[derive(Clone, Debug)]
pub struct Cql {
    /// Contact points, `host:port` each; not empty when the store is the CQL one.
    pub nodes: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// Whether pending migrations are applied at the start.
    pub migrate: bool,
    /// Name and password.
    pub user: Option<(String, Secret)>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The certificates that sign the nodes' own; `None`: those that the platform trusts.
    pub ca_file: Option<PathBuf>,
    /// The data centre whose nodes are used; `None`: any.
    pub datacenter: Option<String>,
    /// How many nodes must agree.
    pub consistency: Consistency,
    /// Copies that a new keyspace has in each data centre; empty: the store's default.
    pub replication: Vec<(String, u32)>,
}

/// `None` if `values` has the errors.
pub(super) fn read(values: &mut Values<'_>, is_used: bool) -> Option<Cql> {
    let nodes = values.read("cql.nodes", parse::nodes);
    let keyspace = values.read("cql.keyspace", parse::keyspace);
    let migrate = values.read("cql.migrate", parse::boolean);
    let user = values.read("cql.user", optional);
    let password = values.read("cql.password", |text| Ok(Secret(text.to_owned())));
    let tls = values.read("cql.tls", parse::boolean);
    let ca_file = values.read("cql.ca_file", optional);
    let datacenter = values.read("cql.datacenter", optional);
    let consistency = values.read("cql.consistency", |text| match text {
        "local_quorum" => Ok(Consistency::LocalQuorum),
        "quorum" => Ok(Consistency::Quorum),
        _ => Err("local_quorum or quorum".to_owned()),
    });
    let replication = values.read("cql.replication", replication);
    if is_used && nodes.as_ref().is_some_and(Vec::is_empty) {
        let missing = InvalidSetting::missing(
            "--cql-nodes or TERTULIA_CQL_NODES",
            "host:port of a node, required for the store cql",
        );
        values.wrong.push(missing);
    }
    if user == Some(None) && password.as_ref().is_some_and(|password| !password.expose().is_empty()) {
        values.refuse("cql.user", "the user name, required with the password");
    }
    Some(Cql {
        nodes: nodes?,
        keyspace: keyspace?,
        migrate: migrate?,
        user: user?.zip(password),
        tls: tls?,
        ca_file: ca_file?.map(PathBuf::from),
        datacenter: datacenter?,
        consistency: consistency?,
        replication: replication?,
    })
}

fn optional(text: &str) -> Result<Option<String>, String> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn replication(text: &str) -> Result<Vec<(String, u32)>, String> {
    let copies = |part: &str| {
        let (datacenter, copies) = part.rsplit_once(':')?;
        let copies = parse::number(copies.trim(), 1..=100).ok().and_then(|copies| u32::try_from(copies).ok())?;
        (!datacenter.trim().is_empty()).then(|| (datacenter.trim().to_owned(), copies))
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let read: Option<Vec<_>> = parts.map(copies).collect();
    read.ok_or_else(|| "name:copies of each data centre, comma-separated, such as eu-west:3,us-east:3".to_owned())
}
