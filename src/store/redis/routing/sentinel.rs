//! Sentinels, which know where the primary is.

use futures_util::future::select_ok;

use super::super::connection::{Connector, ask, error_text};
use super::super::options::{Address, Login};
use super::super::resp::{Reply, Request};
use super::{parse_address, within};

/// Asks all sentinels at once for the primary of a name. The first answer counts: one that is mute holds up nobody.
///
/// # Errors
/// Why the last of them did not say.
pub async fn find_primary(
    connector: &Connector,
    sentinels: &[(Address, Login)],
    master: &str,
) -> Result<Address, String> {
    let asked = sentinels.iter().map(|sentinel| Box::pin(ask_sentinel(connector, sentinel, master)));
    let (primary, _) = select_ok(asked).await?;
    Ok(primary)
}

async fn ask_sentinel(
    connector: &Connector,
    (address, login): &(Address, Login),
    master: &str,
) -> Result<Address, String> {
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
    asked.await.map_err(|reason| format!("sentinel {address}: {reason}"))
}
