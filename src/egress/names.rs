//! Resolving names to addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use actors::id::Address;
use actors::tasks::shares::SharedPermits;
use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::task::futures::TaskLocalFuture;
use tower::Service;

use super::{EgressError, Fault, Guard};

/// Look-ups at once. Each may hold sockets for as long as a name server keeps it waiting.
const MAX_LOOKUPS: usize = 256;
/// The same per workspace: a quarter, so that one workspace's hanging look-ups leave room for others.
const MAX_LOOKUPS_OF_WORKSPACE: usize = MAX_LOOKUPS / 4;
/// How long to wait for one name server, and how often a name is queried.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ATTEMPTS: usize = 2;
/// An answer is used at most this long, whatever its TTL: a service that moves is followed no later.
const MAX_TTL: Duration = Duration::from_secs(300);
/// A missing name is queried again after this long.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);
/// Answers kept.
const MAX_CACHED_ANSWERS: u64 = 8_192;
/// The name server of a system without `/etc/resolv.conf`, by resolv.conf(5).
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

tokio::task_local! {
    /// The workspace whose call needs a connection. The connector itself gets only the server to connect to.
    static CALLER: Address;
}

/// Runs `calling` with look-ups counted for a workspace.
pub(super) fn within<F: Future>(workspace: Address, calling: F) -> TaskLocalFuture<Address, F> {
    CALLER.scope(workspace, calling)
}

/// The workspace of the current look-up.
pub(super) fn caller() -> Address {
    CALLER.try_with(|workspace| *workspace).unwrap_or_default()
}

/// Looks names up. An answer with an unreachable address is refused as a whole: it is either a mistake or an attempt to
/// pass with the help of the others.
#[derive(Clone)]
pub(super) struct Names {
    resolver: TokioResolver,
    lookups: SharedPermits,
    guard: Guard,
}

impl Names {
    pub(super) fn new(guard: Guard, servers: &[SocketAddr]) -> Result<Self, EgressError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().unwrap_or_else(|error| {
                tracing::warn!(%error, asked = %USUAL, "the system's name servers are unknown");
                TokioResolver::builder_with_config(config(&[USUAL]), TokioRuntimeProvider::default())
            })
        } else {
            let mut builder = TokioResolver::builder_with_config(config(servers), TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        };
        tune(builder.options_mut());
        let resolver = builder.build().map_err(|error| EgressError::Names(error.to_string()))?;
        let lookups = SharedPermits::of(MAX_LOOKUPS, MAX_LOOKUPS_OF_WORKSPACE);
        Ok(Self { resolver, lookups, guard })
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Fault> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        let found = if is_localhost(bare) { self.loopback() } else { self.ask(bare).await? };
        match found.iter().find(|ip| !self.guard.admits(**ip)) {
            Some(ip) => Err(Fault::Blocked(format!("{bare} resolves to {ip}, which is not a public address"))),
            None if found.is_empty() => Err(Fault::Resolve(format!("{bare} has no address"))),
            None => Ok(found),
        }
    }

    /// Names of the machine itself are not looked up at name servers (RFC 6761). Of its two addresses the reachable
    /// ones, else both, to be refused.
    fn loopback(&self) -> Vec<IpAddr> {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let admitted: Vec<IpAddr> = both.into_iter().filter(|ip| self.guard.admits(*ip)).collect();
        if admitted.is_empty() { both.to_vec() } else { admitted }
    }

    async fn ask(&self, bare: &str) -> Result<Vec<IpAddr>, Fault> {
        let unresolved = |error: String| Fault::Resolve(format!("{bare} could not be resolved: {error}"));
        let _permit = self.lookups.enter(caller()).await;
        // With a final dot the name is looked up as it is, not below the domains of this machine's network. By the
        // standard host names have no underscores, but some do.
        let name = hickory_resolver::proto::rr::Name::from_str_relaxed(format!("{bare}."));
        let answer = self.resolver.lookup_ip(name.map_err(|error| unresolved(error.to_string()))?).await;
        answer.map(|addresses| addresses.iter().collect()).map_err(|error| unresolved(error.to_string()))
    }
}

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<Self::Response, Fault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.addresses(name.as_str()).await?;
            // The connector fills in the port of the URL.
            let sockets: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(sockets.into_iter())
        })
    }
}

fn is_localhost(bare: &str) -> bool {
    bare.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

fn config(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    ResolverConfig::from_name_servers(servers.collect())
}

fn tune(options: &mut ResolverOpts) {
    options.timeout = SERVER_TIMEOUT;
    options.attempts = MAX_ATTEMPTS;
    // Both families, because all addresses of a name are checked.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = MAX_CACHED_ANSWERS;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    options.max_active_requests = MAX_LOOKUPS;
}
