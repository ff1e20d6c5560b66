fn main() {
    let name = std::env::args().nth(1).unwrap();
    let args: Vec<u64> = std::env::args().skip(2).map(|a| a.parse().unwrap()).collect();
    let start = std::time::Instant::now();
    let scenario = sim::scenarios::find(&name).unwrap();
    let mut coverage = sim::coverage::Coverage::default();
    let mut simulated = 0;
    for seed in args[0]..args[1] {
        let plan = (scenario.plan)(seed);
        let run = sim::run::run(&plan, Some(scenario.expect));
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
        if args.len() > 2 {
            for e in &run.events {
                println!("{e}");
            }
            println!("{:?}", plan.faults);
        }
    }
    println!("{:?} {} simulated s", start.elapsed(), simulated / 1000);
    println!("{:?}\nmissing {:?}", coverage.counts(), coverage.missing());
}
