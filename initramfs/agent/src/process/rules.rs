// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! A filter of system calls that a workload document spells out, as a program for the kernel.

use crate::process::filter::{
    head, Instruction, FIRST_ARGUMENT, IF_AT_LEAST, IF_EQUAL, LOAD, NUMBER, RETURN,
};

/// Jump if greater, and the bitwise and (`include/uapi/linux/bpf_common.h`).
const IF_GREATER: u16 = 0x25;
const AND: u16 = 0x54;

/// How an argument is compared, in the order of their names in `OPERATORS`.
pub const OPERATORS: [&str; 6] = ["eq", "ge", "gt", "le", "lt", "ne"];

/// An argument's bits under `mask`, compared with `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    pub index: u32,
    pub mask: u64,
    /// The place in `OPERATORS`.
    pub operator: usize,
    pub value: u64,
}

/// What becomes of these calls (by their numbers on x86-64) when all arguments are as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub calls: Vec<u32>,
    pub arguments: Vec<Argument>,
    /// What the program returns to the kernel.
    pub action: u32,
}

/// The first rule that fits decides; where none does, `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub rules: Vec<Rule>,
    pub default: u32,
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// The next argument, or the action behind the last one.
    Holds,
    /// The next call or rule.
    Fails,
}

impl Rules {
    pub fn program(&self) -> Vec<Instruction> {
        let mut program = head();
        for Rule { calls, arguments, action } in &self.rules {
            let mut body: Vec<(Instruction, To, To)> = Vec::new();
            for argument in arguments {
                let start = body.len();
                body.extend(comparison(argument));
                let end = body.len();
                for (at, (instruction, yes, no)) in body.iter_mut().enumerate().skip(start) {
                    let holds = distance(at, end);
                    instruction.jt = if matches!(yes, To::Holds) { holds } else { 0 };
                    instruction.jf = if matches!(no, To::Holds) { holds } else { 0 };
                }
            }
            // Behind them the action, and then the number of the call again.
            let fails = body.len() + 1;
            let body: Vec<Instruction> = body
                .into_iter()
                .enumerate()
                .map(|(at, (mut instruction, yes, no))| {
                    if matches!(yes, To::Fails) {
                        instruction.jt = distance(at, fails);
                    }
                    if matches!(no, To::Fails) {
                        instruction.jf = distance(at, fails);
                    }
                    instruction
                })
                .collect();
            for call in calls {
                let other = u8::try_from(fails).unwrap_or(u8::MAX);
                program.push(Instruction { code: IF_EQUAL, jt: 0, jf: other, k: *call });
                program.extend(&body);
                program.push(step(RETURN, *action));
                if !arguments.is_empty() {
                    program.push(step(LOAD, NUMBER));
                }
            }
        }
        program.push(step(RETURN, self.default));
        program
    }
}

fn step(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// How far a jump from `at` goes; a rule's comparisons are far below 255 instructions.
fn distance(at: usize, to: usize) -> u8 {
    u8::try_from(to - at - 1).unwrap_or(u8::MAX)
}

/// The upper half decides unless it is equal; then the lower one does.
fn comparison(argument: &Argument) -> Vec<(Instruction, To, To)> {
    // The kernel's two halves of an argument; the truncation is meant.
    #[allow(clippy::cast_possible_truncation)]
    let halves = |number: u64| ((number >> 32) as u32, number as u32);
    let ((upper, lower), (upper_mask, lower_mask)) = (halves(argument.value), halves(argument.mask));
    let at = FIRST_ARGUMENT + 8 * argument.index;
    let (fails, holds) = (To::Fails, To::Holds);
    let plain = |code, k| (step(code, k), To::Next, To::Next);
    let test = |code, k, yes, no| (step(code, k), yes, no);
    // Above, not equal, and then of the lower half: the test, and where it goes.
    let (above, unequal, last, yes, no) = match argument.operator {
        0 => (fails, fails, IF_EQUAL, holds, fails),
        1 => (holds, fails, IF_AT_LEAST, holds, fails),
        2 => (holds, fails, IF_GREATER, holds, fails),
        3 => (fails, holds, IF_GREATER, fails, holds),
        4 => (fails, holds, IF_AT_LEAST, fails, holds),
        _ => (holds, holds, IF_EQUAL, fails, holds),
    };
    vec![
        plain(LOAD, at + 4),
        plain(AND, upper_mask),
        test(IF_GREATER, upper, above, To::Next),
        test(IF_EQUAL, upper, To::Next, unequal),
        plain(LOAD, at),
        plain(AND, lower_mask),
        test(last, lower, yes, no),
    ]
}
