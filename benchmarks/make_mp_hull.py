"""Pack formation energies of Materials Project compounds for energies above the hull.

    python benchmarks/make_mp_hull.py formation_energies.parquet src/rhosight/data/mp-hull.parquet

The input has the columns material_id, formula and formation_energy_per_atom (eV/atom) of stable
entries. It lacks some, TiN and MgS among them: of 681 crystals of mp-elastic 40 lie more than 0.01
eV/atom below its hull. The bundled datasets' own labels are therefore added.
"""

import sys

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from pymatgen.core import Composition

import rhosight

source, target = sys.argv[1:]
entries = pd.read_parquet(source)
for name in ("mp-fcc", "mp-elastic"):
    dataset = rhosight.load_dataset(name)
    energies = dataset.targets["formation_energy_per_atom"].to_numpy()
    own = pd.DataFrame({"material_id": dataset.ids, "formation_energy_per_atom": energies})
    own["formula"] = [s.composition.reduced_formula for s in dataset.structures]
    entries = pd.concat([entries, own[own["material_id"].str.startswith("mp-")].dropna()])
compositions = [Composition(formula) for formula in entries["formula"]]
table = pd.DataFrame(
    {
        "formula": [one.reduced_formula for one in compositions],
        "elements": ["-".join(sorted(e.symbol for e in one)) for one in compositions],
        "number": entries["material_id"].str.removeprefix("mp-").astype("int32"),
        "formation_energy_per_atom": entries["formation_energy_per_atom"].round(4),
    }
)
table = table[table["elements"].str.contains("-")]  # elements are zero
table = table.sort_values(["elements", "formula", "formation_energy_per_atom"])
table = table.drop_duplicates("formula", ignore_index=True)
columns = pa.Table.from_pandas(
    table.astype({"formation_energy_per_atom": "float32"}), preserve_index=False
).replace_schema_metadata({"licence": "CC BY 4.0", "source": "Materials Project"})
parquet.write_table(columns, target, compression="zstd", compression_level=19)
