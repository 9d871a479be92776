// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The container and the processes in it.

pub mod container;
pub mod live;
pub mod spawn;
