//! Sentinels, which know where the primary is.

use super::super::connection::{Connector, ask, error_text};
use super::super::options::{Address, Login};
use super::super::resp::{Reply, Request};
use super::{parse_address, within};

/// Asks the sentinels for the primary of a name.
///
/// # Errors
/// Why the last of them did not say.
pub async fn find_primary(
    connector: &Connector,
    sentinels: &[(Address, Login)],
    master: &str,
) -> Result<Address, String> {
    let mut last_error = String::new();
    for (address, login) in sentinels {
        let asked = async {
            let connected = connector.connect(address, login, None).await?;
            let command: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", master.as_bytes()];
            let request = Request::read(Default::default()).command(&command);
            let replies = within(connector.timeout, ask(&connected.link, request)).await?;
            match replies.first() {
                Some(Reply::Array(parts)) => {
                    parse_address(parts, &address.host).ok_or_else(|| "it named no primary".to_owned())
                }
                Some(reply) => Err(error_text(reply).unwrap_or_else(|| format!("it knows no {master:?}"))),
                None => Err("it named no primary".into()),
            }
        };
        match asked.await {
            Ok(primary) => return Ok(primary),
            Err(reason) => last_error = format!("sentinel {address}: {reason}"),
        }
    }
    Err(last_error)
}
