// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Filters that a document spells out: their programs, run as the kernel runs them.

use crate::process::filter::Instruction;
use crate::process::rules::{Argument, Rule, Rules, OPERATORS};

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0001;

/// What the program answers; offsets of `struct seccomp_data`.
fn answer(program: &[Instruction], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [call.to_le_bytes(), architecture.to_le_bytes(), [0; 4], [0; 4]].concat();
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut held) = (0, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                let offset = usize::try_from(k).unwrap();
                held = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                continue;
            }
            0x54 => {
                held &= k;
                continue;
            }
            0x06 => return k,
            0x15 => held == k,
            0x25 => held > k,
            0x35 => held >= k,
            other => unreachable!("{other}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

fn filter(rules: Vec<Rule>) -> Vec<Instruction> {
    Rules { rules, default: DENY }.program()
}

fn rule(calls: &[u32], arguments: Vec<Argument>, action: u32) -> Rule {
    Rule { calls: calls.to_vec(), arguments, action }
}

#[test]
fn comparisons_are_of_64_bits() {
    let numbers = [0, 1, 5, 0xffff_ffff, 1 << 32, (1 << 32) | 5, (5 << 32) | 1, u64::MAX - 1, u64::MAX];
    let masks = [u64::MAX, 0xffff_ffff, 0xffff_ffff_0000_0000, 5, 0];
    for (operator, name) in OPERATORS.iter().enumerate() {
        for (value, mask) in numbers.iter().flat_map(|value| masks.map(|mask| (*value, mask))) {
            let argument = Argument { index: 3, mask, operator, value };
            let program = filter(vec![rule(&[41], vec![argument], ALLOW)]);
            for given in numbers {
                let seen = given & mask;
                let holds = match *name {
                    "eq" => seen == value,
                    "ne" => seen != value,
                    "lt" => seen < value,
                    "le" => seen <= value,
                    "gt" => seen > value,
                    _ => seen >= value,
                };
                let expected = if holds { ALLOW } else { DENY };
                let got = answer(&program, X86_64, 41, [9, 9, 9, given, 9, 9]);
                assert_eq!(got, expected, "{given:x} & {mask:x} {name} {value:x}");
            }
        }
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let is = |index, value| Argument { index, mask: u64::MAX, operator: 0, value };
    let program = filter(vec![
        rule(&[0, 1, 41], vec![is(0, 1), is(5, 2)], 1),
        rule(&[1, 41], vec![is(0, 1)], 2),
        rule(&[1], vec![], 3),
        rule(&[1], vec![], 4),
        rule(&[231], vec![], 5),
    ]);
    for (call, arguments, expected) in [
        (0, [1, 0, 0, 0, 0, 2], 1),
        (0, [1, 0, 0, 0, 0, 3], DENY),
        (0, [2, 0, 0, 0, 0, 2], DENY),
        (41, [1, 0, 0, 0, 0, 2], 1),
        (41, [1, 0, 0, 0, 0, 0], 2),
        (41, [0, 0, 0, 0, 0, 0], DENY),
        (1, [1, 0, 0, 0, 0, 2], 1),
        (1, [1, 0, 0, 0, 0, 0], 2),
        (1, [0; 6], 3),
        (231, [0; 6], 5),
        (230, [0; 6], DENY),
    ] {
        assert_eq!(answer(&program, X86_64, call, arguments), expected, "{call} {arguments:?}");
    }
}

#[test]
fn other_architectures_have_no_calls() {
    let program = filter(vec![rule(&[1], vec![], ALLOW)]);
    for (architecture, call) in [(0x4000_0003, 1), (X86_64, 0x4000_0001), (0, 1)] {
        assert_eq!(answer(&program, architecture, call, [0; 6]), 0x0005_0026);
    }
    assert_eq!(answer(&program, X86_64, 1, [0; 6]), ALLOW);
}

#[test]
fn the_largest_filter_fits_into_the_kernel() {
    let arguments = vec![Argument { index: 0, mask: u64::MAX, operator: 5, value: 1 }; 6];
    let calls: Vec<u32> = (0..71).collect();
    assert!(filter(vec![rule(&calls, arguments, ALLOW)]).len() <= 4_096);
    let calls: Vec<u32> = (0..1_000).collect();
    let two = || rule(&calls, vec![], ALLOW);
    assert!(filter(vec![two(), two()]).len() <= 4_096);
}
