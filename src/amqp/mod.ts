/**
 * AMQP: connections that come back, a consumer, a publisher with confirms.
 * @module
 */
export {
  type ConnectionOptions,
  hideCredentials,
  openConnection,
  RefusedError,
  withPort,
} from "./connection.ts";
export { type ConsumerOptions, openConsumer } from "./consumer.ts";
export {
  openPublisher,
  type PublisherOptions,
  type PublishOptions,
  type PublishTarget,
  QueuePublisher,
  targetOf,
} from "./publisher.ts";
export * from "./types.ts";
