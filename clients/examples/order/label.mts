/** The worker in TypeScript, which prints labels. */

import { Worker } from "flowkeep-client";

interface Shipment {
  customer: string;
  address: string;
  /** Grams of each parcel. */
  parcels: number[];
}

const worker = new Worker(process.env["FLOWKEEP_TARGET"], { name: "printer" });

worker.handle<Shipment>(
  {
    name: "label",
    description: "Prints a label for each parcel.",
    params: {
      type: "object",
      required: ["customer", "address", "parcels"],
      properties: {
        customer: { type: "string" },
        address: { type: "string" },
        parcels: { type: "array", items: { type: "integer" } },
      },
    },
    effect: "idempotent",
  },
  ({ customer, address, parcels }, context) =>
    parcels.map((grams, index) => {
      const label = `${customer}, ${address}, parcel ${index + 1} of ${parcels.length}, ${grams} g`;
      context.report((100 * (index + 1)) / parcels.length, label);
      return label;
    }),
);

await worker.run();
