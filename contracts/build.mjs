// Compiles src/*.sol to ../src/clusterai/ledger/artifacts/<Name>.json; with --check it writes nothing and fails on
// any byte of difference. Deterministic: fixed compiler, no metadata hash, sorted keys.
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../src/clusterai/ledger/artifacts");
const names = ["Token", "Registry", "Channels", "ERC3009DepositCollector", "Court", "Credit", "Panel", "Delegations", "Leases", "Audits", "Deliveries", "Disputes", "Vaults", "Rewards", "ChainBeacon", "DrandBeacon", "Multicall3"];

export const settings = {
  optimizer: { enabled: true, runs: 10_000 },
  evmVersion: "cancun",
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode", "storageLayout"] } },
};

function source(path) {
  for (const root of [here, join(here, "node_modules")]) {
    const file = join(root, path);
    if (existsSync(file)) return { contents: readFileSync(file, "utf8") };
  }
  return { error: `no such source: ${path}` };
}

function compile() {
  const files = readdirSync(join(here, "src")).filter((file) => file.endsWith(".sol")).sort();
  const sources = Object.fromEntries(
    files.map((file) => [`src/${file}`, { content: readFileSync(join(here, "src", file), "utf8") }]),
  );
  const input = { language: "Solidity", sources, settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: source }));
  // Warnings in our own sources are errors; those in a dependency are its authors' affair.
  const ours = ({ severity, sourceLocation }) => severity === "error" || sourceLocation?.file.startsWith("src/");
  const problems = (output.errors ?? []).filter(ours);
  for (const problem of problems) console.error(problem.formattedMessage);
  if (problems.length) process.exit(1);
  return output.contracts;
}

function artifact(contracts, name) {
  const { abi, evm, storageLayout } = contracts[`src/${name}.sol`][name];
  const slots = Object.fromEntries(
    storageLayout.storage.map(({ label, slot, offset }) => [label, { slot: Number(slot), offset }]),
  );
  const references = evm.deployedBytecode.immutableReferences ?? {};
  return {
    name,
    compiler: solc.version(),
    abi,
    bytecode: "0x" + evm.bytecode.object,
    deployedBytecode: "0x" + evm.deployedBytecode.object,
    immutables: Object.values(references).flat().length,
    slots,
  };
}

const check = process.argv.includes("--check");
const contracts = compile();
mkdirSync(target, { recursive: true });
let different = 0;
for (const name of names) {
  const file = join(target, `${name}.json`);
  const built = artifact(contracts, name);
  const text = JSON.stringify(built, null, 1) + "\n";
  const size = (built.deployedBytecode.length - 2) / 2;
  const same = existsSync(file) && readFileSync(file, "utf8") === text;
  if (!same && !check) writeFileSync(file, text);
  if (!same && check) different += 1;
  console.log(`${same ? "same   " : check ? "DIFFERS" : "written"} ${name} ${size} bytes`);
}
if (different) {
  console.error(`${different} artifact(s) differ from the sources: run node build.mjs and commit the result`);
  process.exit(1);
}
