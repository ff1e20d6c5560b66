//! Changes of users, policies and mappings: somebody asks a node for one, and is told what came of
//! it.

use crate::event::{CallId, IamEvent, Kept, What};
use crate::iam;
use crate::plan::{ChangePlan, ItemChange};
use crate::world::Host;

/// Makes a change, as the plan says.
pub(super) async fn change(call: CallId, plan: ChangePlan, host: Host) {
    let (pen, copy) = (host.pen.clone(), host.iam.iam());
    // As for a call: it must not keep the manager.
    drop(host);
    let ChangePlan { item, what: change, .. } = plan;
    pen.record(What::Iam(IamEvent::Asked { call, item, change }));
    let done = match copy {
        Some(copy) => make(&copy, call, item, change).await,
        None => Err("the node keeps no items".to_owned()),
    };
    pen.record(What::Iam(match done {
        Ok((kept, untold)) => IamEvent::Changed { call, kept, untold },
        Err(text) => IamEvent::Refused { call, text },
    }));
}

/// Makes it. Returns the record of it, and why peers did not take it.
async fn make(
    copy: &iam_bootstrap::Iam,
    call: CallId,
    item: u8,
    change: ItemChange,
) -> Result<(Kept, Vec<String>), String> {
    let (changed, value) = match change {
        ItemChange::Put => {
            let put = iam::item(item, call).map_err(|error| error.to_string())?;
            (copy.put(put).await, Some(call))
        }
        ItemChange::Delete => {
            let key = iam::key(item).map_err(|error| error.to_string())?;
            (copy.delete(key).await, None)
        }
    };
    match changed {
        Ok(changed) => {
            let untold = changed.peers.into_values().filter_map(Result::err).collect();
            Ok((Kept { item, version: iam::version(changed.version), value }, untold))
        }
        Err(error) => Err(error.to_string()),
    }
}
