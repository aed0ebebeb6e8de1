//! A name server for tests: it answers A and AAAA queries as a test chooses, and its answers must not be cached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;

/// Answers until its runtime ends.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl Dns {
    /// `zone` returns the addresses of a name, in lower case without its final dot; it is called once for each query,
    /// so once for each family.
    pub(crate) async fn serve(zone: impl Fn(&str) -> Vec<IpAddr> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let query = &packet[..length];
                let (name, question_end) = name(query);
                let kind = u16::from_be_bytes([query[question_end - 4], query[question_end - 3]]);
                count.fetch_add(1, Ordering::SeqCst);
                let addresses = zone(&name);
                socket.send_to(&answer(query, question_end, kind, &addresses), from).await.unwrap();
            }
        });
        Self { address, asked }
    }

    /// The number of queries so far, of both families.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The name in the only question, and the end of the question.
fn name(query: &[u8]) -> (String, usize) {
    let mut at = 12;
    let mut labels = Vec::new();
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    (labels.join("."), at + 5)
}

fn answer(query: &[u8], question_end: usize, kind: u16, addresses: &[IpAddr]) -> Vec<u8> {
    let of_kind: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(ip) if kind == A => Some(ip.octets().to_vec()),
            IpAddr::V6(ip) if kind == AAAA => Some(ip.octets().to_vec()),
            _ => None,
        })
        .collect();
    // A name without addresses does not exist.
    let code = if addresses.is_empty() { 3 } else { 0 };
    let mut packet = query[..2].to_vec();
    packet.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(of_kind.len()).unwrap(), 0, 0, 0, 0]);
    packet.extend(&query[12..question_end]);
    for data in of_kind {
        packet.extend([0xc0, 12]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(data.len()).unwrap()]);
        packet.extend(data);
    }
    packet
}
