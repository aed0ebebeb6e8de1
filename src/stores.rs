//! Choosing and opening the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::clock::SystemClock;
use actors::store::inventory::Inventory;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use schema::cql::{self, ConnectError, Contact, CqlStore, MigrateError, Quorum};
use schema::embedded::{self, EmbeddedStore, OnFatal};

use crate::config::cql::Consistency;
use crate::config::{Config, Cql, Secret, StoreKind};
use crate::tls;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store was not opened.
    #[error("cannot open the store: {0}")]
    Embedded(#[from] embedded::OpenError),
    /// The data directory cannot be used.
    #[error(
        "--data-dir (TERTULIA_DATA_DIR) is {dir:?}; allowed: a directory that this process can write to ({source})"
    )]
    DataDir {
        /// The named directory.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The CQL store was not opened.
    #[error("cannot open the store: {0}")]
    Cql(#[from] cql::OpenError),
    /// The CQL keyspace was not created or migrated.
    #[error("cannot migrate the keyspace: {0}")]
    Migrate(#[from] MigrateError),
    /// The cluster's certificates cannot be checked.
    #[error("cannot use {0} as the CA certificates of the CQL nodes: {1}")]
    CaFile(PathBuf, String),
    /// TLS cannot be used.
    #[error("cannot use TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Only a CQL store has migrations.
    #[error("the embedded store needs no migrations; choose --store cql")]
    NoMigrations,
}

impl StoresError {
    /// Whether it may pass by itself: the cluster cannot be reached now, or its schema is being changed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Cql(cql::OpenError::Connect(ConnectError::Unreachable(_))) => true,
            Self::Migrate(error) | Self::Cql(cql::OpenError::Schema(error)) => matches!(
                error,
                MigrateError::Connect(ConnectError::Unreachable(_))
                    | MigrateError::Failed { .. }
                    | MigrateError::Locked(_)
                    | MigrateError::LockLost { .. }
            ),
            _ => false,
        }
    }
}

/// Opens the store in `config`. `on_fatal` is called with the reason when it can store nothing any more.
///
/// # Errors
/// See [`StoresError`].
pub async fn open(config: &Config, on_fatal: OnFatal) -> Result<Arc<dyn Inventory>, StoresError> {
    match config.store {
        StoreKind::Embedded => {
            let options = embedded::Options::new(Arc::new(SystemClock), on_fatal).accept_loss(config.accept_loss);
            match EmbeddedStore::open(&config.data_dir, options) {
                Err(embedded::OpenError::Io { path, source }) if path == config.data_dir => {
                    Err(StoresError::DataDir { dir: path, source })
                }
                opened => Ok(Arc::new(opened?)),
            }
        }
        StoreKind::Cql => {
            let contact = contact(&config.cql)?;
            if config.cql.migrate {
                cql::migrate(&contact, replication(&config.cql)).await?;
            }
            Ok(Arc::new(CqlStore::open(cql::Options::new(contact, Arc::new(SystemClock))).await?))
        }
    }
}

/// Migrates the keyspace; returns a summary.
///
/// # Errors
/// See [`StoresError`].
pub async fn migrate(config: &Config) -> Result<String, StoresError> {
    if config.store == StoreKind::Embedded {
        return Err(StoresError::NoMigrations);
    }
    let applied = cql::migrate(&contact(&config.cql)?, replication(&config.cql)).await?;
    let keyspace = &config.cql.keyspace;
    if applied.is_empty() {
        return Ok(format!("the keyspace {keyspace} is up to date\n"));
    }
    Ok(format!("applied to the keyspace {keyspace}: {}\n", applied.join(", ")))
}

fn replication(cql: &Cql) -> Option<&[(String, u32)]> {
    (!cql.replication.is_empty()).then_some(&cql.replication[..])
}

fn contact(cql: &Cql) -> Result<Contact, StoresError> {
    Ok(Contact {
        nodes: cql.nodes.clone(),
        keyspace: cql.keyspace.clone(),
        datacenter: cql.datacenter.clone(),
        quorum: match cql.consistency {
            Consistency::LocalQuorum => Quorum::Local,
            Consistency::Quorum => Quorum::Global,
        },
        user: cql.user.as_ref().map(|(name, password)| (name.clone(), Secret::expose(password).to_owned())),
        tls: if cql.tls { Some(Arc::new(tls(cql.ca_file.as_deref())?)) } else { None },
    })
}

/// Trusts the certificates in `ca_file`, or those that the platform trusts.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, StoresError> {
    let Some(path) = ca_file else {
        return Ok(tls::builder()?.with_platform_verifier()?.with_no_client_auth());
    };
    let roots = tls::roots(path).map_err(|why| StoresError::CaFile(path.to_owned(), why))?;
    Ok(tls::trusting(roots)?)
}
