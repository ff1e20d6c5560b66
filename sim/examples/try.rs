fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let start = std::time::Instant::now();
    let mut coverage = sim::coverage::Coverage::default();
    let mut simulated = 0;
    for seed in args[0]..args[1] {
        let nodes = args.get(2).map(|n| *n as u8);
        let plan = sim::swarm::plan(seed, nodes);
        let run = sim::run::run(&plan, None);
        coverage.add(&run.coverage);
        simulated += run.simulated_ms;
        println!(
            "{seed}: {:016x} {} nodes {} events {} ms {:?}",
            run.digest(),
            plan.cluster.nodes,
            run.events.len(),
            run.simulated_ms,
            run.violation
        );
        if args.len() > 3 {
            for e in &run.events {
                println!("{e}");
            }
            println!("{:?}", plan.faults);
        }
    }
    println!("{:?} {} simulated s", start.elapsed(), simulated / 1000);
    println!("{:?}\nmissing {:?}", coverage.counts(), coverage.missing());
}
