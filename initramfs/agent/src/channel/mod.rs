// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The channel to the host: its port, frames, and what messages mean.

pub mod frame;
pub mod message;
pub mod port;
pub mod reply;
