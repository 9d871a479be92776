// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Tests that need more than one module, or more room than the end of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod extract;
mod fuzz;
mod message;
mod network;
mod process;
mod reports;
mod rules;
mod tar;
mod terminal;
mod workload;
