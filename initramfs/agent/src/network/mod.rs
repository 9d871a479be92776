// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The guest's network, as far as the host says it (docs/protocol.md, "NETWORK"): interfaces, addresses, routes.

pub mod apply;
pub mod netlink;
pub mod request;
