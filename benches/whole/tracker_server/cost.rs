//! What a round cost, and the table of what many cost.

use std::time::Duration;

use super::bare::Bare;
use super::programs::{Program, Which};
use crate::machine::{self, Cpu};

/// The unit that CPU time is told in.
const ANSWERS: f64 = 1e6;

/// What came of asking.
#[derive(Debug, Default)]
pub struct Told {
    pub answers: u64,
    pub lost: u64,
    /// Bytes of the last one.
    pub answer_len: usize,
    pub took: Duration,
}

/// What one round cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds of [`ANSWERS`]: of all, of the user and of the system.
    pub cpu: [f64; 3],
    /// Answers a second.
    pub speed: f64,
    /// Share of the time that it ran: near one, it was asked faster than it could answer.
    pub busy: f64,
    pub lost: f64,
}

impl Cost {
    /// Of what `told` says; `[user, system]` are coarse, the sum is not.
    fn new(cpu: f64, [user, system]: [f64; 2], told: &Told) -> Self {
        let (answers, all) = (told.answers as f64, (user + system).max(f64::EPSILON));
        let of = |part: f64| cpu * part / all * ANSWERS / answers;
        let took = told.took.as_secs_f64();
        let lost = told.lost as f64 / (told.lost as f64 + answers);
        Self { cpu: [cpu * ANSWERS / answers, of(user), of(system)], speed: answers / took, busy: cpu / took, lost }
    }

    /// Of a program that is asked by `ask`.
    fn of(pid: u32, ask: impl FnOnce() -> Told) -> (Self, Told) {
        let (cpu, before) = (Cpu::of(pid), machine::cpu_parts(pid));
        let told = ask();
        let (cpu, after) = (cpu.spent(), machine::cpu_parts(pid));
        (Self::new(cpu, [after[0] - before[0], after[1] - before[1]], &told), told)
    }

    /// Of a bare loop.
    pub fn of_bare(bare: Bare, ask: impl FnOnce() -> Told) -> Self {
        let told = ask();
        let (cpu, parts) = bare.end();
        Self::new(cpu, parts, &told)
    }
}

/// Prints what a table is of.
pub fn title(what: &str) {
    println!(
        "  {what}: CPU s of a million (user + system), answers/s of a whole core, answers/s, cores that were busy"
    );
}

/// Asks each in turns, so that a noisy minute spoils none alone, and prints medians.
pub fn table(
    rounds: usize,
    programs: &[&Program],
    ask: impl Fn(&Program) -> Told,
    bare: impl Fn(usize) -> Cost,
) -> Vec<Cost> {
    let mut answer_len = 0;
    for program in programs {
        // Whoever announces is in every swarm from now on.
        answer_len = answer_len.max(ask(program).answer_len);
    }
    let (mut bares, mut costs) = (Vec::new(), vec![Vec::new(); programs.len()]);
    for _ in 0..rounds {
        for (program, costs) in programs.iter().zip(&mut costs) {
            costs.push(Cost::of(program.pid(), || ask(program)).0);
        }
        bares.push(bare(answer_len));
    }
    let least = median(&bares);
    let costs: Vec<Cost> = costs.iter().map(|costs| median(costs)).collect();
    let others = programs.iter().zip(&costs).filter(|(program, _)| program.which != Which::Ours);
    let best = others.map(|(_, cost)| cost.cpu[0]).min_by(f64::total_cmp);
    print_cost("bare loop", least, "");
    for (program, cost) in programs.iter().zip(&costs) {
        let mut ratios = format!("   {:.2} x bare", cost.cpu[0] / least.cpu[0]);
        if let (Which::Ours, Some(best)) = (program.which, best) {
            ratios += &format!(", {:.2} x the best of the others", cost.cpu[0] / best);
        }
        print_cost(program.which.name(), *cost, &ratios);
    }
    costs
}

fn print_cost(name: &str, Cost { cpu: [cpu, user, system], speed, busy, lost }: Cost, more: &str) {
    let lost = if lost > 0.0 { format!(", {:.2} % not answered", 100.0 * lost) } else { String::new() };
    let core = ANSWERS / cpu;
    println!("    {name:<16} {cpu:>6.3} ({user:.3} + {system:.3}) {core:>8.0} {speed:>8.0} {busy:>5.2}{more}{lost}");
}

fn median(costs: &[Cost]) -> Cost {
    let mut costs = costs.to_vec();
    costs.sort_by(|a, b| a.cpu[0].total_cmp(&b.cpu[0]));
    costs[costs.len() / 2]
}
